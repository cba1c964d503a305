"""Pipelines that the tests run."""

from kfp import dsl


@dsl.component(base_image="python:3.11")
def add(a: int, b: int) -> int:
    return a + b


@dsl.pipeline(name="addition", description="Adds numbers.")
def addition(a: int = 1, b: int = 2) -> int:
    first = add(a=a, b=b)
    return add(a=first.output, b=10).output


@dsl.container_component
def shell(script: str):
    return dsl.ContainerSpec(image="busybox", command=["sh", "-c"], args=[script])


@dsl.pipeline(name="script")
def script(script: str = "true"):
    shell(script=script)
