"""Coverage-guided fuzzing by Atheris, one target in a process of its own: libFuzzer ends the process it runs in.

    python -m tests.fuzz.guided TARGET INPUTS SEED CORPUS TALLY

CORPUS keeps every input that reached something new; TALLY gets the account as JSON. Needs `pip install atheris` into
the environment of whoever runs this.
"""

import importlib
import logging
import sys
from pathlib import Path

import msgspec

_INSTRUMENTED = [
    "stream", "collectors", "kvandal.settings", "storage.door_request", "storage.roles", "catalogue.resources", "yaml",
    "prometheus_client.parser",
]  # fmt: skip
_NOTE_EVERY = 10_000  # inputs


def main(name: str, inputs: int, seed: int, corpus: Path, tally_path: Path) -> None:
    logging.disable()
    atheris = importlib.import_module("atheris")  # no dependency of ours: it is there, or this engine is not offered
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz.run import Recorder, Tally
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, value in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(value)
    words = tally_path.with_suffix(".words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if len(word) <= 64))
    known = [f"-dict={words}"] if words.stat().st_size else []
    recorder = Recorder(target, Tally(name, "guided"))

    def one_input(value: bytes) -> None:
        recorder.try_input(value)
        if recorder.tally.inputs % _NOTE_EVERY == 0 or recorder.tally.inputs >= inputs:
            recorder.tally.corpus = sum(1 for _ in corpus.iterdir())
            tally_path.write_bytes(msgspec.json.encode(recorder.tally))

    limits = [f"-runs={inputs}", f"-seed={seed}", "-max_len=16384", "-timeout=30", "-verbosity=0", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *limits, *known, str(corpus)], one_input)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
