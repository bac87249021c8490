"""The application's load, as a program of its own inside the app's namespace: prints one JSON line when told to stop.

    load.py ALLOWED ... [--live 4] -- FORBIDDEN ...
                                     short connections to the allowed echo port (each must work), attempts on the
                                     forbidden addresses (each must fail), and as many connections to each
                                     allowed address as said that live throughout
"""
import asyncio
import json
import sys

ECHO, HELD = 9001, 9002


class Load:
    def __init__(self, allowed, forbidden):
        self.allowed, self.forbidden = allowed, forbidden
        self.running = True
        self.worked, self.refused, self.failures, self.leaks, self.rounds = 0, 0, [], [], 0

    async def short(self, address):
        while self.running:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(address, ECHO), 20)
                writer.write(b"ping")
                await writer.drain()
                answer = await asyncio.wait_for(reader.readexactly(4), 20)
                assert answer == b"ping", answer
                writer.close()
                await writer.wait_closed()
                self.worked += 1
            except Exception as error:
                self.failures.append(f"short {address}: {error!r}")
            await asyncio.sleep(0.002)

    async def attack(self, address, port):
        while self.running:
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 20)
                writer.write(b"leak")
                answer = await asyncio.wait_for(reader.read(4), 20)
                (self.leaks.append(f"{address}:{port} answered {answer!r}") if answer else None)
                writer.close()
                self.refused += not answer
            except Exception:
                self.refused += 1
            await asyncio.sleep(0.002)

    async def live(self, address):
        count = 0
        try:
            reader, writer = await asyncio.open_connection(address, HELD)
            while self.running:
                message = count.to_bytes(8, "big")
                writer.write(message)
                answer = await asyncio.wait_for(reader.readexactly(8), 20)
                assert answer == message, "the stream lost its order"
                count += 1
                await asyncio.sleep(0.005)
            self.rounds += count
            writer.close()
        except Exception as error:
            self.failures.append(f"live {address} after {count} rounds: {error!r}")


async def main(allowed, forbidden, live):
    load = Load(allowed, forbidden)
    work = [load.short(address) for address in allowed for _ in range(2)]
    work += [load.attack(address, port) for address in forbidden for port in (ECHO, 443)]
    work += [load.live(address) for address in allowed for _ in range(live)]
    tasks = [asyncio.create_task(part) for part in work]
    print("going", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    load.running = False
    await asyncio.gather(*tasks)
    shown = dict(worked=load.worked, refused=load.refused, failures=load.failures[:20], failed=len(load.failures), leaks=load.leaks, rounds=load.rounds)
    print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    split = sys.argv.index("--")
    allowed, live = sys.argv[1:split], 4
    if "--live" in allowed:
        at = allowed.index("--live")
        live = int(allowed[at + 1])
        del allowed[at:at + 2]
    asyncio.run(main(allowed, sys.argv[split + 1:], live))
