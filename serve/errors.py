"""Errors in the shape that OpenAI's clients read: {"error": {message, type, param, code}}."""

from collections.abc import Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from data.errors import InputError

RETRY_AFTER_S = 1


class ApiError(Exception):
    """An answer other than success. `status` is the HTTP status, `param` the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("retry-after", str(RETRY_AFTER_S))

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON body."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body(), self.status, self.headers)


def from_validation(error: ValidationError) -> ApiError:
    """A 400 that names the first field at fault."""
    first = error.errors(include_url=False)[0]
    param = ".".join(str(part) for part in first["loc"]) or None
    return ApiError(400, f"{param or 'body'}: {first['msg']}", "invalid_value", param)


def install_handlers(app: FastAPI) -> None:
    """Make every failure of `app` OpenAI-shaped, the framework's own included."""

    async def api_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error.response()

    async def input_error(request: Request, error: Exception) -> JSONResponse:
        return ApiError(400, str(error), "invalid_value").response()

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        messages = {
            404: f"there is no {request.url.path}: see /v1/models, /v1/audio/transcriptions, /v1/audio/speech, "
            "/v1/chat/completions",
            405: f"{request.method} is not allowed at {request.url.path}",
        }
        message = messages.get(error.status_code, str(error.detail))
        codes = {404: "not_found", 405: "method_not_allowed"}
        return ApiError(error.status_code, message, codes.get(error.status_code), headers=error.headers).response()

    async def bad_request(request: Request, error: Exception) -> JSONResponse:
        return ApiError(400, str(error), "invalid_value").response()

    async def crash(request: Request, error: Exception) -> JSONResponse:
        return ApiError(500, "the server failed on this request; its log says why", "internal_error").response()

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(InputError, input_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, bad_request)
    app.add_exception_handler(Exception, crash)
