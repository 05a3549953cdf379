-- A device may show its secret alone, as an access token: it is then found by its digest.

CREATE UNIQUE INDEX edge_registry_secret ON platform.edge_registry (secret_sha256);
