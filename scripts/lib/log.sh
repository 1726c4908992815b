# shellcheck shell=bash
# Messages to the person at the terminal. Everything goes to stderr, so that a function's stdout stays its result.

# say TEXT... : one progress line.
say() {
    printf '\033[1m==>\033[0m %s\n' "$*" >&2
}

# note TEXT... : a detail below the last progress line.
note() {
    printf '    %s\n' "$*" >&2
}

# die TEXT... : says what is wrong and how to put it right, and ends the script.
die() {
    printf '\033[1;31merror:\033[0m %s\n' "$*" >&2
    exit 1
}

# Colour is for people; a log file or a CI job gets plain text.
if [[ ! -t 2 ]]; then
    say() { printf '==> %s\n' "$*" >&2; }
    die() {
        printf 'error: %s\n' "$*" >&2
        exit 1
    }
fi
