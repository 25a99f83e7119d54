# To be sourced, where a text of docs/ is followed: what is done is taken from the text, and in the end each of its commands must have
# been done. Before it: TEXT, the text; CONFIG, the daemon's configuration; OUT, where the last output goes; and last_words(), which
# tells what the machine knows when something has failed.
say() {
        local up
        read -r up _ </proc/uptime
        printf '\n== [%s s] %s\n' "$up" "$*"
}

# What went wrong comes last: of a long log the end is what is seen. last_words is whoever follows the text.
die() {
        last_words
        dmabrokerctl guests
        dmabrokerctl windows
        echo "the guest's last words: ${LINE:-}"
        [ ! -s $OUT ] || { echo "the last output:"; tail -n 20 $OUT; }
        printf 'FAILED: %s\n' "$*"
        echo VM-TEST-FAILED
        exit 1
}

# wait_for WHAT COMMAND...: until it succeeds.
wait_for() {
        local what=$1 until=$((SECONDS + 120))
        shift
        until "$@" >$OUT 2>&1; do
                [ $SECONDS -lt $until ] || die "120 s are over: $what"
                read -r -t 0.2 <>/run/nothing
        done
}

# ---- the text ----

# The commands of the text: those in blocks, without what is said of them.
commands() {
        awk '/^```/ { on = $0 == "```sh" || $0 == "```text"; next } on && /^(guest)?# /' $TEXT | sed 's/   *#.*//'
}

# block LANGUAGE TITLE N: the Nth block in that language after the title.
block() {
        awk -v fence="\`\`\`$1" -v title="$2" -v n="$3" '$0 == title { there = 1 } /^```/ { on = there && $0 == fence && ++i == n; next }
                on { print; any = 1 } END { exit !any }' $TEXT || die "the text has no block $3 of $1 after $2"
}

# said PROMPT COMMAND [TEXT=VALUE]: what the text says, in a block or within a sentence, with the value in place of some text.
said() {
        RUN=$2
        if commands | grep -qxF "$1 $2"; then
                echo "$1 $2" >>/test/done
        else
                tr '\n' ' ' <$TEXT | grep -qF "\`$2\`" || die "the text does not say: $2"
        fi
        [ $# -lt 3 ] || RUN=${RUN//"${3%%=*}"/"${3#*=}"}
        local up
        read -r up _ </proc/uptime
        printf '[%s s] %s %s\n' "$up" "$1" "$RUN"
}

# host COMMAND [TEXT=VALUE]: what it prints is in $OUT as well.
host() {
        said '#' "$@"
        (eval "$RUN") >$OUT 2>&1 </dev/null || die "this command"
        cat $OUT
}

refused() {
        said '#' "${@:2}"
        (eval "$RUN") >$OUT 2>&1 </dev/null && die "that should have been refused"
        cat $OUT
        printed "$1"
        in_troubleshooting "$1"
}

printed() {
        grep -qE -e "$1" $OUT || die "nothing like \"$1\" was printed"
}

# The pattern stands for a sentence that the table at the text's end explains.
in_troubleshooting() {
        sed -n '/^## Troubleshooting/,$p' $TEXT | grep -qE -e "^\\| .*$1" || die "the text does not explain: $1"
}

# configure LANGUAGE-BLOCK [SECTION]: the lines go into their sections of the configuration. Those before the first section are SECTION's.
configure() {
        local section=${2:-} line rest
        while read -r line; do
                case $line in
                '') continue ;;
                '['*)
                        section=${line#[}
                        section=${section%]}
                        continue
                        ;;
                esac
                echo "[$section] $line"
                grep -qxF "[$section]" $CONFIG || sed -i "s/^#\\[$section]\$/[$section]/" $CONFIG
                grep -qxF "[$section]" $CONFIG || printf '[%s]\n' "$section" >>$CONFIG
                rest=$(awk -v section="[$section]" -v line="$line" '{ print } $0 == section { print line }' $CONFIG)
                printf '%s\n' "$rest" >$CONFIG
        done <<<"$1"
}

# ---- the guest's console ----

# console COMMAND: it is run on a terminal, which is the guest's from then on.
console() {
        printf '# %s\n' "$1"
        coproc CONSOLE { exec script -qfc "$1" /dev/null 2>&1; }
        # When the program ends, bash takes its own variables away.
        FROM=${CONSOLE[0]} TO=${CONSOLE[1]} CONSOLE_PROCESS=$CONSOLE_PID
}

console_ends() {
        wait "$CONSOLE_PROCESS"
}

hang_up() {
        printf '\035' >&"$TO"
        console_ends
}

# hear PATTERN: the guest's lines until one is like that; it is in LINE.
hear() {
        while IFS= read -r -t 240 -u "$FROM" LINE; do
                LINE=${LINE//$'\r'/}
                [[ $LINE =~ $1 ]] && return
                [ -z "$LINE" ] || printf 'guest: %s\n' "$LINE"
        done
        die "the guest does not say $1"
}

# A console throws away what was typed before its terminal is as it wants it, and does not say when that is.
rouse() {
        local until=$((SECONDS + 120))
        while [ $SECONDS -lt $until ]; do
                echo 'echo "here: $((40 + 2))"' >&"$TO"
                while IFS= read -r -t 5 -u "$FROM" LINE; do
                        [[ $LINE != *'here: 42'* ]] || return
                done
        done
        die "the guest's console is dead"
}

# guest COMMAND [TEXT=VALUE]: what it prints is in $OUT as well.
guest() {
        said 'guest#' "$@"
        in_guest "$RUN" || die "this command"
}

in_guest() {
        printf '%s\necho "end of it: $?"\n' "$1" >&"$TO"
        : >$OUT
        while IFS= read -r -t 240 -u "$FROM" LINE; do
                LINE=${LINE//$'\r'/}
                case $LINE in
                'end of it: 0') cat $OUT; return 0 ;;
                'end of it: '*) cat $OUT; return 1 ;;
                esac
                printf '%s\n' "$LINE" >>$OUT
        done
        die "the guest does not answer"
}

all_is_done() {
        say "what the text says and was not done"
        commands | sort -u >/run/commands
        sort -u /test/done | comm -23 /run/commands - | grep . && die "something was not done"
        commands | wc -l
        echo VM-TEST-PASSED
}

[ -e /run/nothing ] || mkfifo /run/nothing
