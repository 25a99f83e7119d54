# bash completion for dmabrokerctl; what there is, the program itself says.

_dmabrokerctl() {
        local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' operands=0 i
        COMPREPLY=()

        for ((i = 1; i < COMP_CWORD; i++)); do
                case ${COMP_WORDS[i]} in
                --socket) ((i++)) ;;
                -*) ;;
                *) if [[ -z $verb ]]; then verb=${COMP_WORDS[i]}; else ((operands++)); fi ;;
                esac
        done

        if [[ $previous == --socket ]]; then
                mapfile -t COMPREPLY < <(compgen -f -- "$word")
        elif [[ -z $verb && $word == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "--socket --json --help --version" -- "$word")
        elif [[ -z $verb ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$(dmabrokerctl help --words)" -- "$word")
        elif [[ $word == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$(dmabrokerctl help --words "$verb")" -- "$word")
        elif [[ $verb == call && $operands == 0 ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$(dmabrokerctl call --methods)" -- "$word")
        elif [[ $verb == help && $operands == 0 ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$(dmabrokerctl help --words) $(dmabrokerctl call --methods)" -- "$word")
        elif [[ $operands == 0 ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$(dmabrokerctl help --operands "$verb" 2>/dev/null)" -- "$word")
        fi
}

complete -F _dmabrokerctl dmabrokerctl
