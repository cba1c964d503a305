"""Recognise handwritten digits: load, split, train three models, publish the best one.

Written with the stock kfp SDK; every step is a lightweight Python component, so the code below is
all there is. Compile it with `python pipeline.py`, or run it with `run.py`.
"""

import functools
from typing import List

from kfp import compiler, dsl
from kfp.dsl import (
    ClassificationMetrics,
    Collected,
    Dataset,
    HTML,
    Input,
    Markdown,
    Metrics,
    Model,
    Output,
)

# The image is for platforms that run steps in containers; local processes only need Python.
component = functools.partial(dsl.component, base_image="python:3.11")

PACKAGES = ["scikit-learn==1.7.2", "pandas==2.3.3"]


@component(packages_to_install=PACKAGES)
def load(digits: Output[Dataset]):
    """The 1,797 images of 8x8 pixels that come with scikit-learn, one row each."""
    from sklearn.datasets import load_digits

    frame = load_digits(as_frame=True).frame
    frame.to_csv(digits.path, index=False)
    digits.metadata["rows"] = len(frame)


@component(packages_to_install=PACKAGES)
def split(
    digits: Input[Dataset],
    test_share: float,
    seed: int,
    training: Output[Dataset],
    testing: Output[Dataset],
):
    """Keeps a share of the rows back, with all ten digits in proportion."""
    import pandas
    from sklearn.model_selection import train_test_split

    frame = pandas.read_csv(digits.path)
    first, second = train_test_split(
        frame, test_size=test_share, random_state=seed, stratify=frame["target"]
    )
    for part, artifact in ((first, training), (second, testing)):
        part.to_csv(artifact.path, index=False)
        artifact.metadata["rows"] = len(part)


@component(packages_to_install=PACKAGES)
def train(training: Input[Dataset], kind: str, seed: int, model: Output[Model]):
    """Fits one kind of model."""
    import pickle

    import pandas
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    kinds = {
        "logistic-regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "random-forest": RandomForestClassifier(n_estimators=200, random_state=seed),
        "support-vectors": make_pipeline(StandardScaler(), SVC(C=10)),
    }
    frame = pandas.read_csv(training.path)
    fitted = kinds[kind].fit(frame.drop(columns="target").to_numpy(), frame["target"])
    with open(model.path, "wb") as file:
        pickle.dump(fitted, file)
    model.framework = "scikit-learn"
    model.metadata["kind"] = kind


@component(packages_to_install=PACKAGES)
def evaluate(
    model: Input[Model], testing: Input[Dataset], kind: str, metrics: Output[Metrics]
) -> float:
    """Accuracy and macro F1 on the rows that were kept back."""
    import pickle

    import pandas
    from sklearn.metrics import accuracy_score, f1_score

    frame = pandas.read_csv(testing.path)
    with open(model.path, "rb") as file:
        fitted = pickle.load(file)
    guessed = fitted.predict(frame.drop(columns="target").to_numpy())
    accuracy = accuracy_score(frame["target"], guessed)
    metrics.metadata["kind"] = kind
    metrics.log_metric("accuracy", round(accuracy, 4))
    metrics.log_metric("f1", round(f1_score(frame["target"], guessed, average="macro"), 4))
    return accuracy


@component(packages_to_install=PACKAGES)
def choose(models: Input[List[Model]], accuracies: list, best: Output[Model]) -> float:
    """The most accurate of the models, and its accuracy."""
    import shutil

    place = max(range(len(accuracies)), key=accuracies.__getitem__)
    chosen, accuracy = models[place], accuracies[place]
    shutil.copyfile(chosen.path, best.path)
    best.metadata.update(chosen.metadata)
    print(f"{chosen.metadata['kind']} is the best with an accuracy of {accuracy:.4f}")
    return accuracy


@component(packages_to_install=PACKAGES)
def report(
    best: Input[Model],
    testing: Input[Dataset],
    model: Output[Model],
    confusion: Output[ClassificationMetrics],
    page: Output[HTML],
    summary: Output[Markdown],
):
    """Publishes the chosen model with its confusion matrix."""
    import pickle
    import shutil

    import pandas
    from sklearn.metrics import classification_report, confusion_matrix

    kind = best.metadata["kind"]
    shutil.copyfile(best.path, model.path)
    model.metadata.update(best.metadata)
    model.metadata["published"] = True

    frame = pandas.read_csv(testing.path)
    with open(best.path, "rb") as file:
        fitted = pickle.load(file)
    guessed = fitted.predict(frame.drop(columns="target").to_numpy())
    matrix = confusion_matrix(frame["target"], guessed).tolist()
    confusion.log_confusion_matrix([str(digit) for digit in range(10)], matrix)

    most = max(max(row) for row in matrix)
    rows = "".join(
        f"<tr><th>{digit}</th>"
        + "".join(
            f'<td style="background:rgba(30,120,220,{count / most:.2f})">{count}</td>'
            for count in row
        )
        + "</tr>"
        for digit, row in enumerate(matrix)
    )
    head = "".join(f"<th>{digit}</th>" for digit in range(10))
    with open(page.path, "w") as file:
        file.write(
            "<!doctype html><meta charset=utf-8><title>Digits</title>"
            "<style>td,th{padding:.4em .6em;text-align:right;font:14px sans-serif}</style>"
            f"<h1>{kind}</h1><p>Rows are digits, columns are guesses.</p>"
            f"<table><tr><th></th>{head}</tr>{rows}</table>"
        )
    with open(summary.path, "w") as file:
        file.write(f"# {kind}\n\n```\n{classification_report(frame['target'], guessed)}```\n")


@component()
def give_up(accuracy: float, wanted: float):
    """Says that no model was good enough."""
    print(f"the best accuracy is {accuracy:.4f}, less than the {wanted} that were wanted")


@dsl.pipeline(name="digits", description="Train three models on handwritten digits, keep the best.")
def digits(
    kinds: list = ["logistic-regression", "random-forest", "support-vectors"],
    wanted_accuracy: float = 0.9,
    test_share: float = 0.25,
    seed: int = 7,
):
    loaded = load()
    parts = split(digits=loaded.outputs["digits"], test_share=test_share, seed=seed)
    with dsl.ParallelFor(items=kinds) as kind:
        trained = train(training=parts.outputs["training"], kind=kind, seed=seed)
        scored = evaluate(
            model=trained.outputs["model"], testing=parts.outputs["testing"], kind=kind
        )
    chosen = choose(
        models=Collected(trained.outputs["model"]),
        accuracies=Collected(scored.outputs["Output"]),
    )
    with dsl.If(chosen.outputs["Output"] >= wanted_accuracy):
        report(best=chosen.outputs["best"], testing=parts.outputs["testing"])
    with dsl.Else():
        give_up(accuracy=chosen.outputs["Output"], wanted=wanted_accuracy)


if __name__ == "__main__":
    compiler.Compiler().compile(digits, "digits.yaml")
    print("written to digits.yaml")
