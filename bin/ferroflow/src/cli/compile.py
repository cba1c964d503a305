"""Compiles the one pipeline of a Python file: compile.py FILE PACKAGE [FUNCTION].

Exit codes: 10 without the kfp SDK 2, 11 when there is not exactly one pipeline, 12 when the file
itself fails.
"""

import importlib.util
import os
import sys
import traceback
import warnings


def end(code, text):
    sys.stderr.write(text)
    sys.exit(code)


def load(path):
    # What the file imports from its own folder is found, as when Python runs it.
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        end(11, f"it ended with sys.exit({error.code!r}) before its pipeline was read: put what only "
                'a program does below `if __name__ == "__main__":`')
    return module


def choose(module, pipelines, function):
    if function is not None:
        if function in pipelines:
            return pipelines[function]
        known = ", ".join(pipelines) or "none"
        end(11, f"it has no pipeline function {function} (--function); its pipelines: {known}")
    # Those that others were imported for are parts of this file's own.
    own = {
        name: one
        for name, one in pipelines.items()
        if one.pipeline_func.__module__ == module.__name__
    }
    if not own:
        end(11, "it has no pipeline: decorate one function with @kfp.dsl.pipeline")
    if len(own) > 1:
        names = ", ".join(own)
        end(11, f"it has {len(own)} pipelines ({names}): say which one with --function NAME")
    return next(iter(own.values()))


def main():
    path, package, *function = sys.argv[1:]
    warnings.simplefilter("ignore")
    try:
        import kfp
        from kfp.dsl.graph_component import GraphComponent
    except ImportError as error:
        end(10, str(error))
    if int(kfp.__version__.split(".")[0]) < 2:
        end(10, f"it has kfp {kfp.__version__}")
    try:
        module = load(path)
        pipelines = {}
        for name, value in vars(module).items():
            # A pipeline with a second name is one pipeline.
            if isinstance(value, GraphComponent) and value not in pipelines.values():
                pipelines[name] = value
        chosen = choose(module, pipelines, function[0] if function else None)
        kfp.compiler.Compiler().compile(chosen, package)
    except Exception:
        end(12, traceback.format_exc())


main()
