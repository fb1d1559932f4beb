"""``derma`` as a shell runs it."""

import os
import shutil
import subprocess
import sys

import click.testing
import pytest

from derma_semantics.commands import cli


def test_status_of_no_server_exits_3():
    result = click.testing.CliRunner().invoke(cli.main, ["status", "--url", "127.0.0.1:1"])
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.output


def complete(words, shell="bash"):
    """What the shell would be offered after these words."""
    env = {**os.environ, "_DERMA_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words)}
    env["COMP_CWORD"] = str(len(words) - 1)
    command = [sys.executable, "-c", "from derma_semantics.commands.cli import main; main(prog_name='derma')"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_completion_offers_commands_options_and_values():
    assert complete(["derma", "e"]) == ["plain,evaluate", "plain,explain"]
    assert "plain,--embeddings" in complete(["derma", "bulk", "--emb"])
    assert complete(["derma", "explain", "--condition", "B"]) == ["plain,BCC", "plain,BKL"]
    assert "file," in complete(["derma", "evaluate", "--truth", ""])
    assert complete(["derma", "ev"], "zsh")[:2] == ["plain", "evaluate"]


@pytest.mark.parametrize(("shell", "begins"), [("bash", "_derma_completion()"), ("zsh", "#compdef derma")])
def test_completion_script(shell, begins):
    result = click.testing.CliRunner().invoke(cli.main, ["completion", shell])
    assert result.exit_code == 0
    assert result.stdout.startswith(begins)
    assert f"_DERMA_COMPLETE={shell}_complete" in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_script_runs_in_bash(tmp_path):
    """The script, in a real bash, completes a command."""
    script = click.testing.CliRunner().invoke(cli.main, ["completion", "bash"]).stdout
    derma = tmp_path / "derma"
    derma.write_text(f'#!/bin/sh\nexec {sys.executable} -m derma_semantics "$@"\n')
    derma.chmod(0o755)
    (tmp_path / "derma.bash").write_text(script)
    (tmp_path / "try.bash").write_text(
        "source derma.bash\nCOMP_WORDS=(derma cla)\nCOMP_CWORD=1\n"
        "eval \"$(complete -p derma | sed -E 's/.*-F ([^ ]+) .*/\\1/') ./derma\"\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "try.bash"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "classify"
