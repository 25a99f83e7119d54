#!/bin/sh
# Help, the manual page and completion name the same verbs and options. Needs no daemon.
CTL=${TOP_BUILDDIR:-.}/dmabrokerctl
MANUAL=${TOP_SRCDIR:-.}/docs/dmabrokerctl.1
failures=0

complain() {
        echo "$*" >&2
        failures=$((failures + 1))
}

# same WHAT LEFT-NAME LEFT RIGHT-NAME RIGHT: both are lists, one word a line
same() {
        for word in $3; do
                printf '%s\n' "$5" | grep -qxF -e "$word" || complain "$1: $word is in $2, but not in $4"
        done
        for word in $5; do
                printf '%s\n' "$3" | grep -qxF -e "$word" || complain "$1: $word is in $4, but not in $2"
        done
}

options() {
        grep -oE '(^|[^[:alnum:]-])--[a-z][a-z-]*' | grep -oE -e '--[a-z-]+' | sort -u
}

# The manual without its dashes' backslashes: what one section says, up to the next.
manual=$(sed 's/\\-/-/g' "$MANUAL")
section() {
        printf '%s\n' "$manual" | awk -v wanted="$1" '
                /^\.S[SH] / { line = $0; sub(/^\.S[SH] "?/, "", line); sub(/"$/, "", line); inside = line == wanted || index(line, wanted " ") == 1; next }
                inside { print }'
}

verbs=$("$CTL" help --words) || complain "help --words fails"
[ -n "$verbs" ] || complain "there are no verbs"
same verbs "help --words" "$verbs" "the manual page" \
        "$(printf '%s\n' "$manual" | sed -n '/^\.SH VERBS/,/^\.SH EXIT/s/^\.SS "\{0,1\}\([a-z]*\).*/\1/p')"
same verbs "help --words" "$verbs" "help" "$("$CTL" help | sed -n '/^Verbs:/,/^$/s/^  \([a-z][a-z]*\) .*/\1/p')"

# What completion offers as a verb's first operand is what its synopsis or its help says.
for verb in $verbs; do
        for word in $("$CTL" help --operands "$verb"); do
                "$CTL" help "$verb" | grep -qwF -e "$word" || complain "$verb: there is no word on the operand $word"
        done
        for word in $("$CTL" help "$verb" | sed -n '1s/^[^[]*//p' | tr '[|' '\n\n' | grep -oE '^ ?[a-z]+'); do
                "$CTL" help --operands "$verb" | grep -qxF -e "$word" || complain "$verb: completion has no operand $word"
        done
done

common=$("$CTL" help version --words | sort)
for verb in $verbs; do
        words=$("$CTL" help --words "$verb" | sort -u)
        help=$("$CTL" "$verb" --help) || complain "$verb --help fails"
        [ "$help" = "$("$CTL" help "$verb")" ] || complain "$verb --help and help $verb differ"
        same "$verb" "help --words" "$words" "--help" "$(printf '%s\n' "$help" | grep -E '^  --' | options)"
        own=$(printf '%s\n' "$words" | while read -r word; do
                printf '%s\n' "$common" | grep -qxF -e "$word" || printf '%s\n' "$word"
        done)
        same "$verb" "help --words" "$own" "the manual page" "$(section "$verb" | grep -E '^\.B' | options)"
        # The synopsis, as the manual page writes it.
        usage=$(printf '%s\n' "$help" | sed -n '1s/^usage: dmabrokerctl //p' | sed 's/ \[OPTIONS\]//; s/…/.../g')
        printf '%s\n' "$manual" | grep -qxF ".SS \"$usage\"" || complain "$verb: the manual page's heading is not: $usage"
done
same "every verb" "help --words" "$common" "the manual page" \
        "$(section "COMMON OPTIONS" | grep -E '^\.B' | options | grep -vx -e --version)"

# Every method has help, from call as well.
for method in $("$CTL" call --methods); do
        [ -n "$("$CTL" help "$method")" ] || complain "there is no help on $method"
        [ "$("$CTL" help "$method")" = "$("$CTL" call --help "$method")" ] || complain "two helps on $method"
done

# Completion, with the program's own lists.
if command -v bash >/dev/null; then
        completions() {
                PATH="${TOP_BUILDDIR:-.}:$PATH" bash -c '
                        . "$1" && shift && COMP_WORDS=("$@") && COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) && _dmabrokerctl &&
                        printf "%s\n" "${COMPREPLY[@]}"' - "${TOP_SRCDIR:-.}/client/ctl/completion/dmabrokerctl.bash" "$@"
        }
        same completion "help --words" "$verbs" "bash" "$(completions dmabrokerctl "")"
        same completion "help --words alloc" "$("$CTL" help --words alloc)" "bash" "$(completions dmabrokerctl alloc --)"
        same completion "call --methods" "$("$CTL" call --methods)" "bash" "$(completions dmabrokerctl --json call "")"
        same completion "help --operands pools" "$("$CTL" help --operands pools)" "bash" "$(completions dmabrokerctl pools "")"
        [ "$(completions dmabrokerctl --socket /x sta)" = "$(printf 'status\nstats')" ] || complain "bash does not complete sta"
fi

[ "$failures" -eq 0 ]
