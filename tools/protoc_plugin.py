"""The code generator plugin that buf.gen.yaml calls: ``python tools/protoc_plugin.py GENERATOR``.

It reads a CodeGeneratorRequest on stdin, runs the generator and writes a CodeGeneratorResponse on
stdout. It exists for three reasons:

1. The wheel of grpcio-tools carries no plugin executables, only a protoc with the ``python`` and
   ``grpc_python`` generators inside.
2. Field rules live in options that ``buf/validate/validate.proto`` defines, and generated code would
   import ``buf.validate.validate_pb2``. We ship no top-level ``buf`` package, so that import is
   dropped here. The option bytes stay in the descriptors as fields unknown to protobuf's own pool:
   validators read them there, and nothing else needs them.
3. betterproto2 writes a module for every file it is shown, descriptor.proto included, and needs none
   of the custom options. It is shown the messages only, and one deprecated form in its output is
   replaced.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

RULES_FILE = "buf/validate/validate.proto"
OPTIONS_FILE = "google/protobuf/descriptor.proto"
SERVICE_SUFFIX = "_service.proto"

# betterproto2 0.10 writes its oneof check in a form that pydantic deprecates with a warning at every
# import of the models. The second form does the same.
DEPRECATED_CHECK = """\
    def check_oneof(cls, values):
        return cls._validate_field_groups(values)
"""
CURRENT_CHECK = """\
    def check_oneof(self):
        return self._validate_field_groups(self)
"""


def drop_import(file: FileDescriptorProto, dropped: str) -> None:
    """Remove one import from a file and renumber what refers to imports by position."""
    if dropped not in file.dependency:
        return
    gone = list(file.dependency).index(dropped)
    del file.dependency[gone]
    for positions in (file.public_dependency, file.weak_dependency):
        kept = [position - (position > gone) for position in positions if position != gone]
        positions[:] = kept


def drop_file(request: CodeGeneratorRequest, dropped: str) -> None:
    """Remove one file from the request, and every import of it."""
    kept = [file for file in request.proto_file if file.name != dropped]
    for file in kept:
        drop_import(file, dropped)
    del request.proto_file[:]
    request.proto_file.extend(kept)


def run_protoc(request: CodeGeneratorRequest, generator: str, files: list[str]) -> CodeGeneratorResponse:
    """Run a generator that is built into grpc_tools.protoc over the given files."""
    response = CodeGeneratorResponse()
    if not files:
        return response
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = Path(scratch, "descriptors.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(scratch, "out")
        out.mkdir()
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={descriptors}"]
        subprocess.run([*command, f"--{generator}_out={out}", *files], check=True)
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            name = path.relative_to(out).as_posix()
            response.file.add(name=name, content=path.read_text(encoding="utf-8"))
    return response


def run_plugin(request: CodeGeneratorRequest, executable: str) -> CodeGeneratorResponse:
    """Run a protoc plugin from PATH, in an empty folder, where no formatter finds our configuration."""
    command = shutil.which(executable)
    if command is None:
        raise FileNotFoundError(f"{executable} is not on PATH; run make generate")
    with tempfile.TemporaryDirectory() as neutral:
        wire = request.SerializeToString()
        done = subprocess.run([command], input=wire, cwd=neutral, capture_output=True, check=False)
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
    return CodeGeneratorResponse.FromString(done.stdout)


def add_type_markers(response: CodeGeneratorResponse) -> None:
    """Add the py.typed of PEP 561 to every package; ours is a namespace, so each one needs it."""
    for folder in sorted({Path(file.name).parent for file in response.file}):
        response.file.add(name=(folder / "py.typed").as_posix())


def services(request: CodeGeneratorRequest) -> list[str]:
    """The files to generate that define a service."""
    return [name for name in request.file_to_generate if name.endswith(SERVICE_SUFFIX)]


def generate_python(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """The official messages, ``*_pb2.py``, and py.typed."""
    response = run_protoc(request, "python", list(request.file_to_generate))
    add_type_markers(response)
    return response


def generate_python_types(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """The types of the official messages, ``*_pb2.pyi``."""
    return run_plugin(request, "protoc-gen-mypy")


def generate_grpc(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """The official stubs and servicers, ``*_service_pb2_grpc.py``."""
    return run_protoc(request, "grpc_python", services(request))


def generate_grpc_types(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """The types of the official stubs and servicers, ``*_service_pb2_grpc.pyi``."""
    request.file_to_generate[:] = services(request)
    return run_plugin(request, "protoc-gen-mypy_grpc")


def generate_betterproto(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """The typed models, one module per package."""
    for file in request.proto_file:
        del file.extension[:]
    drop_file(request, OPTIONS_FILE)
    response = run_plugin(request, "protoc-gen-python_betterproto2")
    for module in response.file:
        module.content = module.content.replace(DEPRECATED_CHECK, CURRENT_CHECK)
    return response


GENERATORS: dict[str, Callable[[CodeGeneratorRequest], CodeGeneratorResponse]] = {
    "python": generate_python,
    "python_types": generate_python_types,
    "grpc": generate_grpc,
    "grpc_types": generate_grpc_types,
    "betterproto": generate_betterproto,
}


def main(arguments: list[str]) -> int:
    """Answer one request with the generator that the arguments name."""
    if len(arguments) != 1 or arguments[0] not in GENERATORS:
        print(f"usage: protoc_plugin.py {'|'.join(GENERATORS)}", file=sys.stderr)
        return 2
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    drop_file(request, RULES_FILE)
    response = GENERATORS[arguments[0]](request)
    response.supported_features = CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    sys.stdout.buffer.write(response.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
