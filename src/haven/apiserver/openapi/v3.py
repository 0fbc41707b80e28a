"""The OpenAPI v3 documents: one for each group and version, and the small ones beside them.

https://spec.openapis.org/oas/v3.0.0
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

__all__ = ["document", "paths_by_document"]

Tree = dict[str, Any]
_INFO = {"title": "Kubernetes", "version": "1.36"}
_CUSTOM_INFO = {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}
_BEARER = {"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"}
_CODES = {200: "OK", 201: "Created", 202: "Accepted"}


def paths_by_document(
    resources: Iterable[Resource[Any]], custom: Sequence[CustomKind]
) -> dict[str, tuple[list[Path], list[CustomKind]]]:
    """Return, by the document's name such as api/v1 or apis/apps/v1, its paths and its custom kinds."""
    result: dict[str, tuple[list[Path], list[CustomKind]]] = {}
    for path in root_paths():
        result[path.path.strip("/")] = ([path], [])
    for resource in resources:
        group, version = resource.group, resource.version
        name = _name(resource)
        if name not in result:
            result[name] = ([version_path(group, version)], [])
            for path in group_paths([group]):
                result[path.path.strip("/")] = ([path], [])
        result[name][0].extend(resource_paths(resource))
    for one in custom:
        paths, kinds = result.setdefault(_name(one.resource), ([], []))
        paths.extend(resource_paths(one.resource, custom=True, list_kind=one.list_kind))
        kinds.append(one)
    return dict(sorted(result.items()))


def _name(resource: Resource[Any]) -> str:
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def document(name: str, paths: Sequence[Path], custom: Sequence[CustomKind], definitions: Definitions) -> Tree:
    """Return one document; its name tells the group and version."""
    group, version = [*name.split("/"), "", ""][1:3] if name.startswith("apis/") else ("", "v1")
    items = {path.path: _path_item(path) for path in sorted(paths, key=lambda path: path.path)}
    own: dict[str, Tree] = {}
    for one in custom:
        own.update(custom_definitions(one, version=3))
    wanted = [*references(items), *references(own)]
    schemas = {one: definitions.v3(one, group, version) for one in definitions.closure(wanted)}
    components: Tree = {} if custom else {"securitySchemes": {"BearerToken": dict(_BEARER)}}
    if schemas or own:
        components["schemas"] = dict(sorted({**schemas, **own}.items()))
    return {
        "openapi": "3.0.0",
        "info": dict(_CUSTOM_INFO if custom else _INFO),
        "paths": items,
        "components": components,
    }


def _path_item(path: Path) -> Tree:
    shared = set.intersection(*(set(operation.parameters) for operation in path.operations))
    result: Tree = {
        operation.method: _operation(operation, sorted(set(operation.parameters) - shared))
        for operation in path.operations
    }
    common: list[Tree] = []
    if path.subject:
        common.append(_path_parameter("name", f"name of the {path.subject}"))
    if path.namespaced:
        common.append(_parameter("namespace"))
    if path.rest:
        common.append(_path_parameter("path", "path to the resource"))
    common += [_parameter(name) for name in sorted(shared)]
    if common:
        result["parameters"] = sorted(common, key=lambda parameter: parameter["name"])
    return result


def _path_parameter(name: str, description: str) -> Tree:
    return {
        "description": description,
        "in": "path",
        "name": name,
        "required": True,
        "schema": {"type": "string", "uniqueItems": True},
    }


def _parameter(name: str) -> Tree:
    parameter = PARAMETERS[name]
    if parameter.place == "path":
        return _path_parameter(name, parameter.description)
    return {
        "description": parameter.description,
        "in": parameter.place,
        "name": name,
        "schema": {"type": parameter.type, "uniqueItems": True},
    }


def _operation(operation: Operation, names: Sequence[str]) -> Tree:
    result: Tree = {
        "description": operation.description,
        "operationId": operation.id,
        "responses": {
            **{
                str(code): {
                    "description": _CODES[code],
                    "content": {media_type: {"schema": _schema(operation.answer)} for media_type in operation.produces},
                }
                for code in operation.codes
            },
            "401": {"description": "Unauthorized"},
        },
        "tags": [operation.tag],
    }
    if names:
        result["parameters"] = [_parameter(name) for name in names]
    if operation.body:
        body: Tree = {"content": {media_type: {"schema": _schema(operation.body)} for media_type in operation.consumes}}
        if operation.body_required:
            body["required"] = True
        result["requestBody"] = body
    if operation.action:
        result["x-kubernetes-action"] = operation.action
    if operation.gvk is not None:
        result["x-kubernetes-group-version-kind"] = dict(operation.gvk._asdict())
    return result


def _schema(name: str) -> Tree:
    return {"$ref": f"#/components/schemas/{name}"} if name else {"type": "string"}
