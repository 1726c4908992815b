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
