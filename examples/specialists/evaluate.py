"""Score a specialist on its own task: ``python examples/specialists/evaluate.py NAME --data DIR``.

Prints, for each of the task's tests, the accuracy, the mean accuracy over classes and the share of
the commonest class, in percent: the figures of the model card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from specialist import load, score
from tasks import TASKS

HERE = Path(__file__).parent


def evaluate(name: str, data: Path) -> dict[str, dict[str, float]]:
    """Return the scores of the committed weights, by test."""
    task = TASKS[name](data)
    model = load(task, HERE / name)
    return {test: score(model, samples) for test, samples in task.tests.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    options = parser.parse_args()
    print(json.dumps(evaluate(options.name, options.data), indent=1))


if __name__ == "__main__":
    main()
