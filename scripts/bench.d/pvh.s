# What the bare guests of the bench share. Their kernel format is ELF with a PVH entry, which every monitor here loads; they
# are entered at `start` in 32-bit protected mode with flat segments, and no stack.
#
# A guest that measures counts cycles with `begin` and `end`, and prints "NAME=<sixteen hexadecimal digits>" with `report`.

        .set SERIAL, 0x3f8
        .set LINE_STATUS, SERIAL + 5
        .set EMPTY, 0x20

        .section .note.pvh, "a", @note
        .long 4, 4, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long start

        .bss
        .skip   256
stack_end:

        .text
        .code32
        .globl start

begin:  rdtsc
        mov     %eax, %ebp
        mov     %edx, %ebx
        ret

# Cycles since `begin` in ebx (high) and ebp (low).
end:    rdtsc
        sub     %ebp, %eax
        sbb     %ebx, %edx
        mov     %eax, %ebp
        mov     %edx, %ebx
        ret

# Prints the name at esi and the number in ebx:ebp.
report: call    put_text
        mov     %ebx, %edi
        call    hex
        mov     %ebp, %edi
        call    hex
        mov     $'\n', %al
        jmp     put

# Prints the text at esi.
put_text:
        lodsb
        test    %al, %al
        jz      0f
        call    put
        jmp     put_text
0:      ret

# Prints edi in hexadecimal.
hex:    mov     $8, %ecx
0:      rol     $4, %edi
        mov     %edi, %eax
        and     $15, %eax
        mov     digits(%eax), %al
        call    put
        dec     %ecx
        jnz     0b
        ret

# Prints al.
put:    mov     %al, %ah
        mov     $LINE_STATUS, %edx
0:      in      %dx, %al
        test    $EMPTY, %al
        jz      0b
        mov     %ah, %al
        mov     $SERIAL, %edx
        out     %al, %dx
        ret

digits: .ascii  "0123456789abcdef"
