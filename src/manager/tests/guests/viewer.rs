//! A viewer of a guest's screen that understands RFB 3.8 and the encoding Raw.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub struct Viewer {
    stream: UnixStream,
    size: [u16; 2],
}

impl Viewer {
    /// Goes through the handshake; the server is to say that the screen is `name`'s.
    pub async fn greet(stream: UnixStream, name: &str) -> Self {
        let mut viewer = Self {
            stream,
            size: [0; 2],
        };
        assert_eq!(&viewer.read::<12>().await, b"RFB 003.008\n");
        viewer.write(b"RFB 003.008\n").await;
        assert_eq!(viewer.read().await, [1, 1]);
        viewer.write(&[1, 1]).await;
        assert_eq!(viewer.read().await, [0; 4]);
        viewer.size = [viewer.word().await, viewer.word().await];
        let _format: [u8; 16] = viewer.read().await;
        let length = u32::from_be_bytes(viewer.read().await);
        let mut told = vec![0; length as usize];
        viewer.stream.read_exact(&mut told).await.unwrap();
        assert_eq!(told, name.as_bytes());
        viewer
    }

    async fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    async fn word(&mut self) -> u16 {
        u16::from_be_bytes(self.read().await)
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Red, green and blue of all pixels.
    pub async fn picture(&mut self) -> Vec<u8> {
        self.write(&[3, 0, 0, 0, 0, 0, 255, 255, 255, 255]).await;
        let [width, height] = self.size.map(usize::from);
        let mut picture = vec![0; width * height * 3];
        assert_eq!(self.read().await, [0, 0]);
        for _ in 0..self.word().await {
            let [x, y] = [self.word().await, self.word().await].map(usize::from);
            let [columns, rows] = [self.word().await, self.word().await].map(usize::from);
            assert_eq!(self.read().await, [0; 4]);
            for row in y..y + rows {
                for column in x..x + columns {
                    let [blue, green, red, _] = self.read().await;
                    let at = (row * width + column) * 3;
                    picture[at..at + 3].copy_from_slice(&[red, green, blue]);
                }
            }
        }
        picture
    }
}
