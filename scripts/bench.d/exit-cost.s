# A guest that measures what an exit to user space costs: it reads the scratch register of the serial port, which no
# kernel emulates, and counts cycles.
#
# It reports "exit-cycles", the cycles that COUNT reads took, and "loop-cycles", the loop without them.

        .include "pvh.s"
        .set COUNT, 10000
        .set SCRATCH, SERIAL + 7
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

exits:  .asciz  "exit-cycles="
loop:   .asciz  "loop-cycles="
