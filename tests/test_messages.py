"""Every text of a report is in the catalogue of its Spanish."""

import ast
import string
import subprocess
import sys

import pytest
from babel.messages import Catalog

from analysis.frames import runs
from analysis.wording import messages, words
from analysis.wording.texts import LANGUAGES, language, plural, shown, text
from study.config.setting import Listed, setting_of
from study.sweeps import definition
from tests.conftest import ROOT

TRANSLATED = LANGUAGES[1:]


def mistakes(catalogue: Catalog, found: list[messages.Message]) -> list[str]:
    """List what is wrong with a catalogue of the texts found in the code."""
    known = {(message.id, message.context or ""): message for message in catalogue if message.id}
    asked = {(message.id, message.context) for message in found}
    wrong = [f"no entry, say `make messages`: {key}" for key in asked - known.keys()]
    wrong += [f"no longer said, say `make messages`: {key}" for key in known.keys() - asked]
    wrong += [f"no longer said: {key}" for key in catalogue.obsolete]
    for key, message in known.items():
        english, spoken = ((words,) if isinstance(words, str) else words for words in (message.id, message.string))
        if not all(spoken):
            wrong.append(f"not translated: {key}")
        elif len(spoken) != len(english):
            wrong.append(f"needs {len(english)} forms: {key}")
        elif any(places(one) != places(other) for one, other in zip(english, spoken, strict=True)):
            wrong.append(f"holds other values: {key}")
        if message.fuzzy:
            wrong.append(f"fuzzy: {key}")
    return wrong


def places(words: str) -> set[tuple[str, str]]:
    """Return the values that a text has places for, with their formats; a number may be left out of its plural."""
    try:
        fields = [(field, spec) for _, field, spec, _ in string.Formatter().parse(words) if field]
    except ValueError:  # such a text is never filled in
        return set()
    return {(field, spec) for field, spec in fields if field != "n"}


@pytest.mark.parametrize("name", TRANSLATED)
def test_every_text_is_translated(name):
    found = list(messages.messages())
    assert len(found) > 400
    assert not mistakes(messages.catalogue(name), found)


@pytest.mark.parametrize("name", TRANSLATED)
def test_what_is_missing_or_wrong_in_a_catalogue_is_found(name):
    found = list(messages.messages())
    for message in found[:: len(found) // 9]:
        for spoil in (
            lambda catalogue, message: catalogue.delete(message.text, message.context or None),
            lambda catalogue, message: setattr(of(catalogue, message), "string", ""),
            lambda catalogue, message: setattr(of(catalogue, message), "string", "{other:.1f}"),
            lambda catalogue, message: of(catalogue, message).flags.add("fuzzy"),
            lambda catalogue, message: catalogue.add(f"Not {message.text}", "no", context=message.context or None),
        ):
            catalogue = messages.catalogue(name)
            spoil(catalogue, message)
            assert mistakes(catalogue, found), message


def contents(catalogue: Catalog) -> list[tuple]:
    return [(message.id, message.context, message.string) for message in catalogue if message.id]


def of(catalogue, message):
    return catalogue.get(message.text, message.context or None)


def test_texts_are_found_in_code_templates_and_sweeps():
    code = (
        'text("One", context="a"), plural("a", "b" "c", 2), mark("Two"), axes.text("x"), text(WORD), f"{text(\'in\')}"'
    )
    found = {messages.Message("One", "", "a"), messages.Message("a", "bc"), messages.Message("Two")}
    assert set(messages.of_code(code)) == found | {messages.Message("in")}
    assert list(messages.of_template('<p>{{ text("Here") }}</p>')) == [messages.Message("Here")]
    texts = {message.text for message in messages.messages()}
    assert {"Contents", *(definition.read(path).description for path in messages.sweeps())} <= texts


@pytest.mark.parametrize(
    "code", ['text(f"{kind} one")', 'text("a " + b)', 'mark("a" if b else "c")', 'plural("a", f"b", 1)']
)
def test_a_text_is_not_put_together_at_run_time(code):
    with pytest.raises(ValueError, match=r"^a\.py:1: a text is a constant"):
        list(messages.of_code(code, "a.py"))


def test_every_value_of_a_text_is_given():
    """A place in a text without a value fails only where it is said; calls with `**values` cannot be read."""
    for path in (ROOT / "analysis").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
            if name in ("text", "plural") and isinstance(call.args[0], ast.Constant):
                given = {word.arg for word in call.keywords} - {"context"}
                if name == "text" and given and None not in given:
                    asked = {field for field, _ in places(call.args[0].value)}
                    assert asked | {"n"} == given | {"n"}, f"{path}:{call.lineno}"
                elif name == "plural" and None not in given:
                    asked = {field for one in call.args[:2] for field, _ in places(one.value)}
                    assert asked == given, f"{path}:{call.lineno}"


def test_new_texts_join_the_catalogue_and_old_ones_leave_it(tmp_path, monkeypatch):
    path = tmp_path / "es.po"
    path.write_bytes(messages.path_of("es").read_bytes())
    before = contents(messages.catalogue("es"))
    monkeypatch.setattr(messages, "path_of", lambda name: path)
    messages.update("es")
    assert contents(messages.catalogue("es")) == before, "say `make messages`"
    found = messages.messages()
    gone = next(iter(found))
    del found[gone]
    found[messages.Message("{n} cat", "{n} cats")] = ["analysis/cats.py"]
    monkeypatch.setattr(messages, "messages", lambda: found)
    messages.update("es")
    catalogue = messages.catalogue("es")
    assert gone.text not in catalogue and catalogue["{n} cat"].string == ("", "")
    assert mistakes(catalogue, list(found)) == ["not translated: (('{n} cat', '{n} cats'), '')"]


def test_every_option_has_a_name():
    assert {*runs.IDENTITY} <= words.OPTIONS.keys()


def test_a_text_without_a_translation_is_english():
    with language("es"):
        assert text("Is it {n:.1f}?", n=1.5) == "Is it 1,5?"
        assert [plural("{n} cat of {whose}", "{n} cats of {whose}", n, whose="*a*") for n in (1, 2)] == [
            "1 cat of \ufdd0a\ufdd0",
            "2 cats of \ufdd0a\ufdd0",
        ]


def test_a_number_chooses_the_form():
    for name, forms in (("en", ("1 other", "2 others")), ("es", ("1 más", "2 más"))):
        with language(name):
            assert tuple(plural("{n:,} other", "{n:,} others", n) for n in (1, 2)) == forms
    with language("es"):
        assert text("crashed") == "caídas" and text("crashed", context="of one run") == "cayó"
        assert text("a {b} of the user's") == "a {b} of the user's", "braces are braces where nothing is filled in"


def test_english_reads_no_catalogue():
    code = "import sys; from analysis.wording.texts import text; text('Epoch'); print('babel' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.stdout == "False\n", done.stderr


def test_values_of_options_are_translated():
    values = {"augment": Listed(("flip", "crop")), "pretrained": False}
    with language("es"):
        assert shown(setting_of(values, values)) == "con aumento (reflejo y recorte) · desde cero"
