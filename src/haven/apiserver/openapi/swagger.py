"""The OpenAPI v2 document, piece by piece, so that it need never be whole in memory as a tree.

https://swagger.io/specification/v2/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from haven.api.scheme import Resource
from haven.apiserver.openapi.custom import custom_definitions
from haven.apiserver.openapi.operations import (
    PARAMETERS,
    Operation,
    Path,
    group_paths,
    resource_paths,
    root_paths,
    version_path,
)
from haven.apiserver.openapi.schemas import CustomKind, Definitions, references

__all__ = ["all_paths", "definitions", "head", "parameters", "path_item"]

Tree = dict[str, Any]
_UNAUTHORIZED = {"401": {"description": "Unauthorized"}}
_CODES = {200: "OK", 201: "Created", 202: "Accepted"}


def head() -> Tree:
    """Return what the document says beside paths, definitions and parameters."""
    bearer = {
        "description": "Bearer Token authentication",
        "in": "header",
        "name": "authorization",
        "type": "apiKey",
    }
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "1.36"},
        "security": [{"BearerToken": []}],
        "securityDefinitions": {"BearerToken": bearer},
    }


def all_paths(resources: Sequence[Resource[Any]], custom: Sequence[CustomKind]) -> list[Path]:
    """Return every path, sorted."""
    result = root_paths()
    versions = dict.fromkeys((resource.group, resource.version) for resource in resources)
    result += [version_path(group, version) for group, version in versions]
    result += group_paths(dict.fromkeys(group for group, _ in versions))
    for resource in resources:
        result += resource_paths(resource)
    for one in custom:
        result += resource_paths(one.resource, custom=True, list_kind=one.list_kind)
    return sorted(result, key=lambda path: path.path)


def parameters() -> Tree:
    """Return the parameters that operations share."""
    return {name: _parameter(name) for name in sorted(PARAMETERS)}


def _parameter(name: str) -> Tree:
    parameter = PARAMETERS[name]
    result: Tree = {
        "description": parameter.description,
        "in": parameter.place,
        "name": name,
        "type": parameter.type,
        "uniqueItems": True,
    }
    if parameter.place == "path":
        result["required"] = True
    return result


def path_item(path: Path) -> Tree:
    """Return the document's entry of a path; what all its operations take stands beside them."""
    shared = set.intersection(*(set(operation.parameters) for operation in path.operations))
    result: Tree = {
        operation.method: _operation(operation, sorted(set(operation.parameters) - shared))
        for operation in path.operations
    }
    common: list[Tree] = []
    if path.subject:
        common.append(_path_parameter("name", f"name of the {path.subject}"))
    if path.namespaced:
        common.append(_reference("namespace"))
    if path.rest:
        common.append(_path_parameter("path", "path to the resource"))
    common += [_reference(name) for name in sorted(shared)]
    if common:
        result["parameters"] = sorted(common, key=_name_of)
    return result


def _name_of(parameter: Tree) -> str:
    name: str = parameter["$ref"].rpartition("/")[2] if "$ref" in parameter else parameter["name"]
    return name


def _path_parameter(name: str, description: str) -> Tree:
    return {
        "description": description,
        "in": "path",
        "name": name,
        "required": True,
        "type": "string",
        "uniqueItems": True,
    }


def _reference(name: str) -> Tree:
    return {"$ref": f"#/parameters/{name}"}


def _operation(operation: Operation, names: Sequence[str]) -> Tree:
    parameters: list[Tree] = []
    if operation.body:
        body: Tree = {"in": "body", "name": "body", "schema": {"$ref": f"#/definitions/{operation.body}"}}
        if operation.body_required:
            body["required"] = True
        parameters.append(body)
    # dryRun and fieldValidation stand inline: clients look for them by name here and do not follow references.
    parameters += [_parameter(name) if name in ("dryRun", "fieldValidation") else _reference(name) for name in names]
    schema: Tree = {"$ref": f"#/definitions/{operation.answer}"} if operation.answer else {"type": "string"}
    result: Tree = {
        **({"consumes": list(operation.consumes)} if operation.consumes else {}),
        "description": operation.description,
        "operationId": operation.id,
        "produces": list(operation.produces),
        "responses": {
            **{str(code): {"description": _CODES[code], "schema": schema} for code in operation.codes},
            **_UNAUTHORIZED,
        },
        "schemes": ["https"],
        "tags": [operation.tag],
    }
    if parameters:
        result["parameters"] = parameters
    if operation.action:
        result["x-kubernetes-action"] = operation.action
    if operation.gvk is not None:
        result["x-kubernetes-group-version-kind"] = dict(operation.gvk._asdict())
    return result


def definitions(paths: Sequence[Path], custom: Sequence[CustomKind]) -> Iterator[tuple[str, Tree]]:
    """Yield (name, schema) of every definition that the paths need."""
    known = Definitions()
    own: dict[str, Tree] = {}
    for one in custom:
        own.update(custom_definitions(one, version=2))
    wanted = {name for path in paths for operation in path.operations for name in (operation.answer, operation.body)}
    for name in known.closure([*wanted, *references(own)]):
        yield name, known.v2(name)
    yield from own.items()
