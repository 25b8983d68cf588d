"""The door of every service: who may ask for what. Closed by default; `OPEN` is all that anybody may ask for.

A request passes, in this order (`middleware.py`):

1. Host (`origins.py`): it names this service. A page that has its own name resolve to our address does not (DNS rebinding).
2. Origin (`origins.py`): a browser sends it from no other site, but for a link that leads to what is open to anybody.
3. Key (`callers.py`): `Authorization: Bearer KEY`. Search and trainer know the operator's key and those in Postgres; policy,
   PRM and sandbox know the token that the services share.
4. Rate (`rates.py`): the key's requests a minute.
5. Scope: `admin` may do everything; `solve` what the service lists (`SolveAccess`), to what is its own.

What was meant to change something is written down (`audit.py`).

Limits: a service without a key in its settings asks for none; it then listens on loopback or a Unix socket only (`bind`). A
Unix socket is closed by its file's mode.
"""

OPEN = frozenset(
    {
        "GET /health",
        "GET /livez",
        "GET /readyz",
        "GET /openapi.json",
        "HEAD /openapi.json",
        "GET /",
        "GET /page/{path}",
    }
)
"""Asked for without a key: probes have none, the document holds what the source code says, and so do the files of the page,
which asks the API with a key. `/metrics` is not among them: it tells models and load, and Prometheus can send a key
(`authorization: {credentials_file: …}`)."""
