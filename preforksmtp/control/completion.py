"""Completion of preforksmtpctl in bash and zsh, made from the table of orders."""

from __future__ import annotations

from collections.abc import Sequence

from preforksmtp.control.orders import ORDERS

SHELLS = ("bash", "zsh")

_BASH = """\
_preforksmtpctl() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} said="" each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ $each == -* ]] || said="$said$each "
    done
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "{options}" -- "$word"))
        return
    fi
    case "$said" in
{cases}
    esac
}}
complete -F _preforksmtpctl preforksmtpctl
"""


def script(shell: str, options: Sequence[str]) -> str:
    """What the shell is to read: `eval "$(preforksmtpctl --completion bash)"`."""
    following: dict[str, list[str]] = {}
    for order in ORDERS:
        words = order.words.split()
        for place, word in enumerate(words):
            known = following.setdefault("".join(f"{each} " for each in words[:place]), [])
            if word not in known:
                known.append(word)
    cases = "\n".join(
        f'        "{said}") COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")) ;;'
        for said, words in following.items()
    )
    text = _BASH.format(options=" ".join(options), cases=cases)
    return text if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{text}"
