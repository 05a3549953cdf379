"""An OPC UA server made with PyPI's asyncua: a peer that this project did not write.

Namespace urn:foodflow:akron with `L3.TT-310` (a Double that rises by 0.01 each 200 ms) and `L3.STATIC` (never changes).
Prints the port it listens on. Port 0 or no argument picks a free one.
"""

import asyncio
import logging
import socket
import sys

from asyncua import Server, ua


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def main() -> None:
    logging.disable(logging.CRITICAL)
    port = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] != "0" else free_port()
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace("urn:foodflow:akron")
    moving = await server.nodes.objects.add_variable(ua.NodeId("L3.TT-310", index), "TT-310", 80.0)
    await server.nodes.objects.add_variable(ua.NodeId("L3.STATIC", index), "STATIC", 5.5)
    async with server:
        print(port, flush=True)
        value = 80.0
        while True:
            await asyncio.sleep(0.2)
            value = round(value + 0.01, 2)
            await moving.write_value(value)


asyncio.run(main())
