//! The text in a VMDK that says of which extents it is made.

use super::super::ImageError;
use super::super::error::shown;
use crate::format::Format;

/// Most bytes of a descriptor; real ones have about a thousand.
pub(super) const LONGEST: u64 = 64 << 10;

/// What of a descriptor matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) create_type: String,
    /// Of the disk that this one has the changes to.
    parent: Option<String>,
    /// The parts of the disk: type and file, if it names one.
    extents: Vec<(String, Option<String>)>,
}

impl Descriptor {
    /// Takes lines it does not know for nothing; nobody writes all of them alike.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let (mut has_parent, mut hint) = (false, String::new());
        // What is behind the text is filled up with zeroes.
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        for line in String::from_utf8_lossy(text).lines() {
            let line = line.trim();
            if let Some((key, value)) = line.split_once('=')
                && !key.trim().contains(' ')
            {
                let value = value.trim().trim_matches('"');
                match key.trim().to_ascii_lowercase().as_str() {
                    "createtype" => found.create_type = shown(value.as_bytes()),
                    "parentcid" => has_parent = !value.eq_ignore_ascii_case("ffffffff"),
                    "parentfilenamehint" => hint = shown(value.as_bytes()),
                    _ => {}
                }
            } else if let Some(extent) = extent(line)
                && found.extents.len() < 1000
            {
                found.extents.push(extent);
            }
        }
        found.parent = has_parent.then_some(hint);
        found
    }

    /// Fails unless all of the disk is in the file that has the descriptor.
    pub(super) fn require_whole(&self) -> Result<(), ImageError> {
        let remedy = "make one file of them where they are: `qemu-img convert -O vmdk -o subformat=streamOptimized`, or export \
                      the machine as an OVA";
        if let Some(parent) = &self.parent {
            let problem = format!("that has only the changes to its parent \"{parent}\"");
            return Err(ImageError::refused(Format::Vmdk, problem, remedy));
        }
        let whole = matches!(
            self.create_type.as_str(),
            "monolithicSparse" | "streamOptimized"
        );
        match &self.extents[..] {
            [(kind, _)] if whole && kind == "SPARSE" => Ok(()),
            _ => Err(ImageError::refused(Format::Vmdk, self.others(), remedy)),
        }
    }

    /// Where the disk's data are instead.
    fn others(&self) -> String {
        let files: Vec<String> = self
            .extents
            .iter()
            .filter_map(|(_, file)| file.as_ref().map(|file| format!("\"{file}\"")))
            .collect();
        let kind = &self.create_type;
        match &files[..] {
            [] => format!("of type \"{kind}\", whose data are not in the file"),
            [one] => format!("of type \"{kind}\", whose data are in {one}"),
            [one, .., last] => format!(
                "of type \"{kind}\", whose data are in {} files, {one} to {last}",
                files.len()
            ),
        }
    }
}

/// `RW 4192256 SPARSE "disk-s001.vmdk"`
fn extent(line: &str) -> Option<(String, Option<String>)> {
    let mut words = line.splitn(4, char::is_whitespace);
    if !matches!(words.next()?, "RW" | "RDONLY" | "NOACCESS") {
        return None;
    }
    words.next()?.parse::<u64>().ok()?;
    let kind = shown(words.next()?.as_bytes());
    let name = words.next().and_then(|rest| rest.split('"').nth(1));
    Some((kind, name.map(|name| shown(name.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "# Disk DescriptorFile\nversion=1\nCID=1f2e\nparentCID=ffffffff\n\
        createType=\"streamOptimized\"\n\n# Extent description\nRW 81920 SPARSE \"disk 1.vmdk\"\n\nddb.adapterType = \"ide\"\n\0\0";

    #[test]
    fn reads_what_matters() {
        let one = Descriptor::parse(ONE.as_bytes());
        assert_eq!(one.create_type, "streamOptimized");
        assert_eq!(
            one.extents,
            [("SPARSE".to_owned(), Some("disk 1.vmdk".to_owned()))]
        );
        one.require_whole().unwrap();
    }

    #[test]
    fn names_what_is_missing() {
        let told = |text: &str| {
            let error = Descriptor::parse(text.as_bytes()).require_whole();
            error.unwrap_err().to_string()
        };
        let two = ONE.replace("streamOptimized", "twoGbMaxExtentSparse") + "x";
        let two = two.replace("\n\nddb", "\nRW 1 SPARSE \"disk 2.vmdk\"\nddb");
        assert_eq!(
            told(&two),
            "the file is a VMDK image of type \"twoGbMaxExtentSparse\", whose data are in 2 files, \"disk 1.vmdk\" to \"disk 2.vmdk\""
        );
        let child = ONE.replace("ffffffff", "1\nparentFileNameHint=\"base.vmdk\"");
        assert_eq!(
            told(&child),
            "the file is a VMDK image that has only the changes to its parent \"base.vmdk\""
        );
        assert!(told("").contains("not in the file"));
    }
}
