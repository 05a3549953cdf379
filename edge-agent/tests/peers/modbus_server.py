"""A Modbus TCP server made with PyPI's pymodbus: a peer that this project did not write.

Holding registers 0..99 hold 100 + address, 10/11 the float 73.25 in ABCD order; everything else is an illegal address.
Coils 0..15 alternate, starting with 1. Prints the port it listens on.
"""

import asyncio
import socket
import struct

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def main() -> None:
    registers = [100 + address for address in range(100)]
    registers[10], registers[11] = struct.unpack(">HH", struct.pack(">f", 73.25))
    bits = [address % 2 == 0 for address in range(16)]
    device = SimDevice(
        id=1,
        simdata=(
            [SimData(0, values=bits, datatype=DataType.BITS)],
            [SimData(0, values=bits, datatype=DataType.BITS)],
            [SimData(0, values=registers, datatype=DataType.REGISTERS)],
            [SimData(0, values=registers, datatype=DataType.REGISTERS)],
        ),
    )
    port = free_port()
    server = ModbusTcpServer(device, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print(port, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
