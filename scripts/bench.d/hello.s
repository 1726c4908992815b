# The smallest guest: it prints "hello" and sleeps. What it takes to get there is its monitor's doing.

        .include "pvh.s"
start:
        cli
        mov     $stack_end, %esp
        mov     $hello, %esi
        call    put_text
        mov     $'\n', %al
        call    put
0:      hlt
        jmp     0b

hello:  .asciz  "hello"
