# SPDX-License-Identifier: Apache-2.0
"""``/files``: uploads that messages can refer to."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import python_multipart  # noqa: F401  Starlette reads forms with it, and would miss it at the first upload only
from attrs import frozen
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tramontane.wire import FieldError, identifier
from tramontane.wire.scope import tenant
from tramontane_frontend_openai.endpoint import answer
from tramontane_frontend_openai.errors import missing
from tramontane_frontend_openai.pages import Page, page
from tramontane_frontend_openai.store import Store, StoredFile

MOST_LISTED = 10_000
"""Files on a page, at most and by default."""
MAX_FIELDS = 16
"""Parts of an upload; a form with more is not read to its end."""
_LONGEST_S = 30 * 24 * 3600
_SHORTEST_S = 3600


@frozen
class Files:
    """Handlers over a store."""

    store: Store

    async def create(self, request: Request) -> Any:
        """``POST /files``: a form with ``file`` and ``purpose``."""
        try:
            form = await request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=64 * 1024)
        except HTTPException as error:
            raise FieldError(f"the form cannot be read: {error.detail}", param="file") from None
        try:
            sent, purpose = form.get("file"), form.get("purpose")
            if not isinstance(sent, UploadFile):
                raise FieldError("file must be a part of the form with the file's content", param="file")
            if not isinstance(purpose, str):
                raise FieldError("purpose is missing", param="purpose")
            content, now = await sent.read(), time.time()
            file = StoredFile(
                id=f"file-{uuid.uuid4().hex}", created=now, expires=_expiry(form, now), size=len(content),
                name=(sent.filename or "file").replace("\\", "/").rpartition("/")[2][:255] or "file",
                purpose=identifier(purpose, "purpose"),
            )  # fmt: skip
        finally:
            await form.close()
        if not await asyncio.to_thread(self.store.put_file, tenant(request), file, content):
            raise FieldError("the server holds as many files as it may; delete some", param="file", status=429)
        return answer(_card(file))

    async def list(self, request: Request) -> Any:
        """``GET /files``."""
        asked = Page.of(request.query_params, most=MOST_LISTED, usual=MOST_LISTED)
        purpose = request.query_params.get("purpose")
        found = await asyncio.to_thread(self.store.files, tenant(request))
        return answer(page([_card(file) for file in found if purpose in (None, file.purpose)], asked))

    async def retrieve(self, request: Request) -> Any:
        """``GET /files/{id}``."""
        return answer(_card(await asyncio.to_thread(self._file, request)))

    async def content(self, request: Request) -> Any:
        """``GET /files/{id}/content``. It is always an attachment: no browser shows what somebody uploaded."""
        found = await asyncio.to_thread(self.store.file_content, tenant(request), request.path_params["id"])
        if found is None:
            raise missing("file", request.path_params["id"])
        headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
        return Response(found, media_type="application/octet-stream", headers=headers)

    async def delete(self, request: Request) -> Any:
        """``DELETE /files/{id}``."""
        file_id = request.path_params["id"]
        if not await asyncio.to_thread(self.store.delete_file, tenant(request), file_id):
            raise missing("file", file_id)
        return answer({"id": file_id, "object": "file", "deleted": True})

    def text(self, owner: bytes, file_id: str, param: str) -> tuple[str, str]:
        """The name and the text of a file, for a message that refers to it.

        Raises:
            FieldError: There is no such file, or it is no text.
        """
        found = self.store.file(owner, file_id)
        content = self.store.file_content(owner, file_id) if found is not None else None
        if found is None or content is None:
            raise FieldError(f"there is no file {file_id!r}", param=param, status=404, wire_code="file_not_found")
        try:
            return found.name, content.decode("utf-8")
        except UnicodeDecodeError:
            raise FieldError(f"the file {file_id!r} is not a text file", param=param) from None

    def _file(self, request: Request) -> StoredFile:
        file_id = request.path_params["id"]
        found = self.store.file(tenant(request), file_id)
        if found is None:
            raise missing("file", file_id)
        return found


def _expiry(form: Any, now: float) -> float | None:
    given = form.get("expires_after[seconds]")
    if given is None:
        return None
    if not isinstance(given, str) or not given.isdecimal() or not _SHORTEST_S <= int(given[:12]) <= _LONGEST_S:
        raise FieldError(
            f"expires_after[seconds] must be from {_SHORTEST_S} to {_LONGEST_S}", param="expires_after[seconds]"
        )
    return now + int(given)


def _card(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id, "object": "file", "bytes": file.size, "created_at": int(file.created),
        "expires_at": None if file.expires is None else int(file.expires), "filename": file.name,
        "purpose": file.purpose, "status": "processed", "status_details": None,
    }  # fmt: skip
