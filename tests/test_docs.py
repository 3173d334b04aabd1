"""What the documentation says is what the code does: tables and commands in it are held to their source."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.settings.loading import load_settings
from gateway.settings.rows import SETTINGS, markdown
from tests.attack.attacks import ATTACKS
from tests.support.gateways import GatewayProcess
from tests.support.publishers import Publisher
from tests.support.waiting import eventually, missing

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")])


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, list[str]]]:
    """Each `gateway …` line of a shell block, with its page."""
    found = []
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8"), "(?:sh|shell|bash|console)"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(re.sub(r"^\$ ", "", line), comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words[:1] == ["gateway"]:
                    end = next((n for n, word in enumerate(words) if word in ("|", ">", "&&", "&")), len(words))
                    found.append((page.name, words[1:end]))
    return found


def test_the_table_of_settings_is_that_of_the_code() -> None:
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert text.partition("by `make docs` -->\n")[2].strip() == markdown().strip(), "run `make docs`"


def test_every_variable_that_is_named_is_one() -> None:
    known = {row.variable for row in SETTINGS.values()}
    known |= {f"{row.variable}_FILE" for row in SETTINGS.values() if row.kind == "secret"}
    known |= {"GATEWAY_CONFIG", "GATEWAY_URL", "GATEWAY_TOKEN"}
    for page in PAGES:
        for name in re.findall(r"GATEWAY_[A-Z_]*[A-Z](?!…|_…)\b", page.read_text(encoding="utf-8")):
            assert name in known or name.startswith("GATEWAY_TEST_"), f"{page.name} names {name}"


def test_every_settings_file_that_is_shown_is_valid(tmp_path: Path) -> None:
    shown = 0
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8"), "toml"):
            data = tomllib.loads(block)
            known = {
                "mqtt",
                "history",
                "access",
                "streams",
                "roles",
                "limit",
                "port",
                "host",
                "tls",
                "alerts",
                "decode",
            }
            if not set(data) & known:
                continue
            if any(key in block for key in ("_file", "cert =")):
                continue  # names files that aren't here
            path = tmp_path / "gateway.toml"
            path.write_text(block, encoding="utf-8")
            load_settings(config_file=path, environ={})
            shown += 1
    assert shown


GROUPS = ("archive",)
"""Commands that have commands of their own."""


@pytest.mark.parametrize(("page", "arguments"), commands(), ids=lambda value: str(value)[:60])
def test_every_command_that_is_shown_has_these_flags(page: str, arguments: list[str]) -> None:
    # --help is looked at before anything is run, but after the command's name
    name, *rest = arguments
    command = [name, *rest[:1]] if name in GROUPS else [name]
    text = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "400", "NO_COLOR": "1"})
    assert text.exit_code == 0, f"{page}: {name} is no command"
    for word in rest:
        if re.match(r"--?[a-zA-Z]", word):
            assert re.search(rf"(?<!\S){re.escape(word.partition('=')[0])}(?!\S)", text.output), f"{page}: {word}"


def test_the_architecture_has_every_module() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Files\n")[2].partition("\n## ")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    named = {name for cell in first_cells for name in re.findall(r"`([\w/]+)`", cell)}
    package = ROOT / "gateway"
    files = [path.relative_to(package).with_suffix("") for path in package.rglob("[!_]*.py")]
    assert {path.as_posix() for path in files if path.parts[0] != "cli"} <= named
    assert all((package / name).is_dir() or (package / f"{name}.py").is_file() for name in named)


def test_the_architecture_has_every_folder() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.partition("## The repository\n")[2].partition("\n## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)/", cell)}
    made = {line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."} - made
    assert {folder for folder in folders if any((ROOT / folder).iterdir())} == named


def curls() -> list[str]:
    """Each question to a gateway that a page asks with curl."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    lines = [line for text in texts for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("curl ") and "127.0.0.1:8000" in line]


@pytest.mark.parametrize("command", curls())
def test_every_curl_that_is_shown_is_answered(command: str, gateway: GatewayProcess, publisher: Publisher) -> None:
    if shutil.which("curl") is None:
        missing("curl")
    publisher.publish("sensors/living-climate/state", b'{"temperature":21.5}')
    eventually(lambda: gateway.json("/topics/sensors/living-climate/state")["messages"], 10, "a reading is there")
    words = shlex.split(command.replace("http://127.0.0.1:8000", gateway.http))
    result = subprocess.run([*words, "-sS", "--fail", "--max-time", "3"], capture_output=True, timeout=20, check=False)
    # an event stream has no end of its own
    assert result.returncode == (28 if "text/event-stream" in command else 0), result.stderr
    assert b"sensors/living-climate" in result.stdout or "/topics/" not in command


def test_the_questions_quote_what_explain_says_and_have_every_step_that_can_fail() -> None:
    files = ("gateway/ops/explain.py", "gateway/core/topics.py", "gateway/access/grants.py")
    code = "".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    said = re.sub(r"\"\s*\n\s*f?\"", "", code)  # strings that go on in the next line
    text = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE)
    quoted = [part.strip() for _, cell in rows for quote in re.findall("“(.*?)”", cell) for part in quote.split("…")]
    assert quoted
    for part in filter(None, quoted):
        assert part in said, f"docs/faq.md: {part}"
    assert set(re.findall(r'Step\("(\w+)", False', code)) <= {step for step, _ in rows}


def test_the_comparison_has_the_figures_that_were_measured() -> None:
    measured = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    text = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
    delays = text.partition("## Processor time of a delivery\n")[2]
    shown = 0
    for row in re.findall(r"^\| (\d.*?) \| (.*) \|$", delays, re.MULTILINE):
        # the same scenario: its row begins with the same words
        subscribers, rate = re.match(r"([\d,]+ subscribers of [\w ]+).*?([\d,]+ messages/s)", row[0]).groups()  # type: ignore[union-attr]
        [line] = [line for line in measured.splitlines() if f"| {subscribers}" in line and rate in line]
        for figure in re.findall(r"[\d.,]+", row[1]):
            assert re.search(rf"[ |]{re.escape(figure)}[ ,|]", line), f"{row[0]}: {figure}"
            shown += 1
    assert shown == 16


def test_the_comparison_on_a_bad_line_is_what_was_measured() -> None:
    def rows(text: str, head: str) -> list[list[str]]:
        table = text.partition(head)[2].partition("\n\n")[0]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in (head + table).splitlines()]

    measured = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    [names, _, *lines] = rows(measured, "|  | our client library |")
    by_name = {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in lines if len(row) == len(names)}
    shown = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
    [_, _, *clients] = rows(shown, "| | missing | of it in silence |")
    assert len(clients) == len(names) - 1
    for client, missing_of_all, in_silence, twice, back in clients:
        name = client.replace(" with ", ", ")
        told, silent = (int(by_name[f"missing, {how}"][name].replace(",", "")) for how in ("told of", "not told of"))
        assert (f"{told + silent:,}", f"{silent:,}") == (missing_of_all, in_silence), client
        assert by_name["delivered twice"][name] == twice
        assert by_name["back after a new address"][name].partition(",")[0] + " s" == back


def test_every_target_of_make_and_every_profile_of_compose_that_is_shown_is_one() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    profiles = set(re.findall(r"profiles: \[(.*?)\]", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    known = {name.strip() for some in profiles for name in some.split(",")}
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8"), "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["make"]:
                    asked = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
                    assert set(asked) <= targets, f"{page.name}: {line}"
                for profile in re.findall(r"docker compose .*?--profile (\w+)", line):
                    assert profile in known, f"{page.name}: {line}"


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_what_the_page_about_django_shows_is_the_examples() -> None:
    """Which a test runs (tests/browser/test_examples.py)."""
    files = [
        path for path in (ROOT / "examples/django").rglob("*") if path.suffix in (".py", ".html", ".conf", ".toml")
    ]
    lines = {line.strip() for path in files for line in path.read_text(encoding="utf-8").splitlines()}
    shown = {line.partition("  #")[0].rstrip() for line in lines}
    text = (ROOT / "docs/django.md").read_text(encoding="utf-8")
    for language in ("python", "js", "nginx", "toml"):
        for block in blocks(text, language):
            for line in block.splitlines():
                assert line.strip() in lines | shown, f"docs/django.md: {line}"


def test_no_page_puts_a_token_or_a_password_onto_a_command_line() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in blocks(text, "sh"):
            assert not re.search(r"--(token|password) +(?!-(\s|$))|--secret\b|Bearer +\S|\s-P\s|://\w+:\w+@", block), (
                page.name
            )


def test_no_page_names_a_path_of_somebodys_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/(home|root|Users|tmp)/\w", page.read_text(encoding="utf-8")), page.name


def test_every_test_that_a_page_names_is_there() -> None:
    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for page in PAGES:
        for name in re.findall(r"`(?:tests/(?:\w+/)*)?(test_\w+\.py)`", page.read_text(encoding="utf-8")):
            assert name in names, f"{page.name} names {name}"


def test_no_line_of_a_page_is_too_long_to_read() -> None:
    """Tables, pictures and code stand as they are."""
    for page in [*PAGES, ROOT / "web/client/README.md"]:
        in_code = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            in_code ^= line.lstrip().startswith("```")
            is_prose = not (in_code or line.startswith(("|", "    ", "![")))
            assert not (is_prose and len(line) > 120), f"{page.name}:{number} has {len(line)} characters"


def test_every_file_of_the_code_that_is_named_is_there() -> None:
    """In pages, and in what explains code of another language."""
    rooms = "gateway|sensors_sim|firmware|tests|benchmarks|web/client|web/dashboard"
    sources = [path for folder in ("web/client/src", "web/dashboard/src") for path in (ROOT / folder).rglob("*.ts*")]
    named = 0
    for page in [*PAGES, *sources]:
        if page.name == "CHANGELOG.md":
            continue
        for name in re.findall(rf"(?<![\w/-])(?:{rooms})/[\w/]+\.(?:py|tsx?|css)\b", page.read_text(encoding="utf-8")):
            named += 1
            assert (ROOT / name).is_file(), f"{page.name} names {name}"
    assert named > 20


def test_the_manual_names_each_hostile_client_and_no_other() -> None:
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    table = text.partition("### Hostile clients\n")[2].partition("\n## ")[0]
    named = [name for row in table.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(attack.name for attack in ATTACKS)
