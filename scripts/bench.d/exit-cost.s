# A guest that measures what an exit to user space costs: it reads the scratch register of the serial port, which no
# kernel emulates, and counts cycles. Its kernel format is ELF with a PVH entry, which every monitor here loads; it is
# entered in 32-bit protected mode with flat segments, and no stack.
#
# It prints "exit-cycles=<sixteen hexadecimal digits>", the cycles that COUNT reads took, and the same for "loop-cycles",
# the loop without them.

        .set COUNT, 10000
        .set SERIAL, 0x3f8
        .set SCRATCH, SERIAL + 7
        .set LINE_STATUS, SERIAL + 5
        .set EMPTY, 0x20

        .section .note.pvh, "a", @note
        .long 4, 4, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long start

        .text
        .code32
        .globl start
start:
        cli
        mov     $stack_end, %esp
        call    measure_exits           # once for whatever happens only the first time
        call    measure_exits
        mov     $exits, %esi
        call    report
        call    measure_loop
        mov     $loop, %esi
        call    report
        # Whoever listens ends us; triple faulting would do it too, but not in every monitor.
0:      hlt
        jmp     0b

# Cycles of COUNT reads in ebx (high) and ebp (low).
measure_exits:
        call    begin
        mov     $SCRATCH, %edx
        mov     $COUNT, %ecx
0:      in      %dx, %al
        dec     %ecx
        jnz     0b
        jmp     end

measure_loop:
        call    begin
        mov     $COUNT, %ecx
0:      dec     %ecx
        jnz     0b
        jmp     end

begin:  rdtsc
        mov     %eax, %ebp
        mov     %edx, %ebx
        ret

end:    rdtsc
        sub     %ebp, %eax
        sbb     %ebx, %edx
        mov     %eax, %ebp
        mov     %edx, %ebx
        ret

# Prints the name at esi and the number in ebx:ebp.
report: lodsb
        test    %al, %al
        jz      0f
        call    put
        jmp     report
0:      mov     %ebx, %edi
        call    hex
        mov     %ebp, %edi
        call    hex
        mov     $'\n', %al
        jmp     put

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

exits:  .asciz  "exit-cycles="
loop:   .asciz  "loop-cycles="
digits: .ascii  "0123456789abcdef"

        .bss
        .skip   64
stack_end:
