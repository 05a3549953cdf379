"""An OPC UA server made with PyPI's asyncua that misbehaves on command: a peer that this project did not write.

Namespace urn:foodflow:akron with `COUNT` (a Double that rises by 1 each 100 ms), `STATIC` (never changes), `SET` (an
Int16 that may be written) and `N.0` ... `N.<items - 1>` (Doubles). Prints the port it listens on, then an answer line for each
command on standard input:

  freeze        values and the server's clock stand still; requests are answered
  burst         COUNT comes once with the Overflow info bit
  touch         every N.* gets a new value
  stat          {"subscriptions": n, "items": n, "sessions": n, "set": v} as JSON
"""

import argparse
import asyncio
import datetime
import json
import logging
import socket
import sys
from pathlib import Path

from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import SimpleRoleRuleset
from asyncua.server.user_managers import User, UserRole

URI = "urn:foodflow:peer"


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--items", type=int, default=0)
    parser.add_argument("--secure", help="directory for a new certificate: Basic256Sha256 only")
    parser.add_argument("--expired", action="store_true")
    parser.add_argument("--user", help="name:password")
    parser.add_argument("--skew", type=int, default=0, help="seconds that the server's clock is ahead")
    parser.add_argument("--max-call", type=int, help="more monitored items in one call are refused")
    parser.add_argument("--call-status", default="BadTooManyOperations")
    parser.add_argument("--max-items", type=int, help="more monitored items in one subscription are refused")
    return parser.parse_args()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_certificate(directory: Path, expired: bool) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    directory.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    now = datetime.datetime.now(datetime.timezone.utc)
    end = now - datetime.timedelta(days=1) if expired else now + datetime.timedelta(days=30)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URI)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.der").write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


class Users:
    def __init__(self, user: str) -> None:
        self.name, self.password = user.split(":")

    def get_user(self, iserver, username=None, password=None, certificate=None):
        if username == self.name and password == self.password:
            return User(role=UserRole.User)
        return None


def limit(service, args) -> None:
    """Refuses calls and items beyond the limits, as small controllers do."""
    create = service.create_monitored_items

    async def limited(params):
        wanted = params.ItemsToCreate
        if args.max_call and len(wanted) > args.max_call:
            raise ServiceError(getattr(ua.StatusCodes, args.call_status))
        if not args.max_items:
            return await create(params)
        held = len(service.subscriptions[params.SubscriptionId].monitored_item_srv._monitored_items)
        room = max(args.max_items - held, 0)
        params.ItemsToCreate = wanted[:room]
        results = await create(params) if room else []
        for _ in wanted[room:]:
            refused = ua.MonitoredItemCreateResult()
            refused.StatusCode = ua.StatusCode(ua.StatusCodes.BadTooManyMonitoredItems)
            results.append(refused)
        return results

    service.create_monitored_items = limited


async def main() -> None:
    logging.disable(logging.CRITICAL)
    args = arguments()
    port = args.port or free_port()
    server = Server(user_manager=Users(args.user)) if args.user else Server()
    await server.init()
    await server.set_application_uri(URI)
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    if args.secure:
        directory = Path(args.secure)
        make_certificate(directory, args.expired)
        server.set_security_policy(
            [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt], permission_ruleset=SimpleRoleRuleset()
        )
        await server.load_certificate(str(directory / "cert.der"))
        await server.load_private_key(str(directory / "key.pem"))
    if args.user:
        server.set_identity_tokens([ua.UserNameIdentityToken])
    index = await server.register_namespace("urn:foodflow:akron")
    objects = server.nodes.objects
    count = await objects.add_variable(ua.NodeId("COUNT", index), "COUNT", 0.0)
    await objects.add_variable(ua.NodeId("STATIC", index), "STATIC", 5.5)
    settable = await objects.add_variable(ua.NodeId("SET", index), "SET", 1, ua.VariantType.Int16)
    await settable.set_writable()
    nodes = [await objects.add_variable(ua.NodeId(f"N.{n}", index), f"N.{n}", float(n)) for n in range(args.items)]
    service = server.iserver.subscription_service
    limit(service, args)
    skew = datetime.timedelta(seconds=args.skew)
    frozen = asyncio.Event()
    burst = asyncio.Event()

    async def values() -> None:
        value = 0.0
        while not frozen.is_set():
            await asyncio.sleep(0.1)
            value += 1.0
            status = ua.StatusCodes.Good
            if burst.is_set():
                burst.clear()
                status = 0x480
            now = datetime.datetime.now(datetime.timezone.utc) + skew
            await count.write_value(
                ua.DataValue(
                    ua.Variant(value, ua.VariantType.Double),
                    StatusCode=ua.StatusCode(status),
                    SourceTimestamp=now,
                    ServerTimestamp=now,
                )
            )

    async def clock() -> None:
        node = server.iserver.current_time_node
        while not frozen.is_set():
            now = datetime.datetime.now(datetime.timezone.utc) + skew
            await node.write_value(now)
            await asyncio.sleep(0.5)

    async with server:
        server.iserver.time_task.cancel()
        tasks = [asyncio.create_task(values()), asyncio.create_task(clock())]
        print(port, flush=True)
        loop = asyncio.get_running_loop()
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if not line:
                await asyncio.Event().wait()
            command = line.strip()
            answer = "ok"
            if command == "freeze":
                frozen.set()
                await asyncio.gather(*tasks)
            elif command == "burst":
                burst.set()
            elif command == "touch":
                for node in nodes:
                    await node.write_value(-1.0)
            elif command == "stat":
                subscriptions = service.subscriptions.values()
                answer = json.dumps(
                    {
                        "subscriptions": len(subscriptions),
                        "items": sum(len(s.monitored_item_srv._monitored_items) for s in subscriptions),
                        "set": await settable.read_value(),
                    }
                )
            print(answer, flush=True)


asyncio.run(main())
