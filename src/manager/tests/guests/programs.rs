//! What the guests do.

use crate::guest;

// Prints `r`, and powers off when its power button is pressed.
guest!(
    pub obedient,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    // PM1a status, power button.
    "1: mov edx, 0x600",
    "in ax, dx",
    "test ah, 1",
    "jz 1b",
    // PM1a control: SLP_EN with the sleep type of S5.
    "mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "2: jmp 2b",
);

// Prints `r`, and powers off when its power button is pressed for the second time: the first time it was not ready.
guest!(
    pub gets_ready,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "mov ecx, 2",
    "1: mov edx, 0x600",
    "in ax, dx",
    "test ah, 1",
    "jz 1b",
    // Seen: cleared by writing it.
    "mov ax, 0x100",
    "out dx, ax",
    "dec ecx",
    "jnz 1b",
    "mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "2: jmp 2b",
);

// Prints `r` and stands still: it does not look at its power button.
guest!(
    pub idle,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "1: hlt",
    "jmp 1b",
);

// Powers off at once.
guest!(
    pub powers_off,
    "mov edx, 0x604",
    "mov ax, 0x2000",
    "out dx, ax",
    "1: jmp 1b",
);

// Prints `r`, and says that it has crashed, again and again, when a byte comes on its serial port.
guest!(
    pub panics,
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "1: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    "mov edx, 0x505",
    "mov al, 1",
    "2: out dx, al",
    "jmp 2b",
);

// An empty interrupt table, and an undefined instruction.
guest!(pub triple_faults, "lidt [0x4000]", "ud2");

// Sends back what it gets on its serial port, plus one.
guest!(
    pub adds_one,
    "1: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    "mov edx, 0x3f8",
    "in al, dx",
    "inc al",
    "out dx, al",
    "jmp 1b",
);

// Prints `r`, and a digit for each byte it gets, the next one each time. It counts in memory.
guest!(
    pub counts,
    "mov dword ptr [0x300000], 0x30",
    "mov edx, 0x3f8",
    "mov al, 'r'",
    "out dx, al",
    "1: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 1b",
    "mov edx, 0x3f8",
    "in al, dx",
    "inc dword ptr [0x300000]",
    "mov al, [0x300000]",
    "out dx, al",
    "jmp 1b",
);

// Prints `r`; `u` when something is plugged in, `d` when it is asked for something; when it gets a byte on its serial port, it lets that go
// and prints `e`.
guest!(
    pub lets_go,
    "xor esi, esi",
    "mov al, 'r'",
    "1: mov edx, 0x3f8",
    "out dx, al",
    "2: mov edx, 0xd80",
    "in eax, dx",
    "test eax, eax",
    "jz 3f",
    "out dx, eax",
    "mov al, 'u'",
    "jmp 1b",
    "3: mov edx, 0xd84",
    "in eax, dx",
    "test eax, eax",
    "jz 4f",
    "out dx, eax",
    "mov esi, eax",
    "mov al, 'd'",
    "jmp 1b",
    "4: mov edx, 0x3fd",
    "in al, dx",
    "test al, 1",
    "jz 2b",
    "mov edx, 0x3f8",
    "in al, dx",
    "mov edx, 0xd88",
    "mov eax, esi",
    "out dx, eax",
    "mov al, 'e'",
    "jmp 1b",
);
