"""What asyncssh does with a server; prints what it saw."""
import asyncio, os, shlex, sys, warnings
warnings.filterwarnings("ignore")
import asyncssh

e = os.environ


async def main():
    host_key = asyncssh.import_public_key(e["SIDE_HOSTKEY"])
    keys = [(e["SIDE_KEY"], e["SIDE_CERTIFICATE"])] if e["SIDE_CERTIFICATE"] else [e["SIDE_KEY"]]
    options = dict(username=e["SIDE_USER"], client_keys=keys, known_hosts=([host_key], [], []), config=None)
    if e["SIDE_PROXY"]:
        options["proxy_command"] = e["SIDE_PROXY"]
    async with asyncssh.connect(e["SIDE_HOST"], int(e["SIDE_PORT"]), **options) as c:
        r = await c.run("cat; echo err >&2; exit 7", input="input\n")
        print("exec", repr(r.stdout), repr(r.stderr), r.exit_status)
        r = await c.run("kill -TERM $$")
        print("signal", r.exit_status, r.exit_signal)
        r = await c.run("head -c 3000000 /dev/zero; exit 5", encoding=None)
        print("3MB", len(r.stdout), r.exit_status)
        r = await c.run("stty size; exit 2", term_type="xterm", term_size=(90, 30), input="")
        print("terminal", repr(r.stdout), r.exit_status)
        rs = await asyncio.gather(*[c.run("echo %d; exit %d" % (n, n)) for n in range(20)])
        print("parallel", [(r.stdout, r.exit_status) for r in rs])
        async with c.start_sftp_client() as sftp:
            name = e["SIDE_WORK"] + "/asyncssh"
            blob = bytes(range(256)) * 12000
            async with sftp.open(name, "wb") as f:
                await f.write(blob)
            await sftp.get(name, name + ".back")
            print("sftp", (await sftp.stat(name)).size, open(name + ".back", "rb").read() == blob)
            await sftp.mkdir(e["SIDE_WORK"] + "/d"); await sftp.rename(name, e["SIDE_WORK"] + "/d/x")
            print(sorted(n for n in await sftp.listdir(e["SIDE_WORK"] + "/d") if n[0] != "."))
            try:
                await sftp.stat("/nonexistent")
            except asyncssh.SFTPError as x:
                print("missing", x.code)
        async with c.create_process("cat; exit 6") as p:
            p.stdin.write("half"); p.stdin.write_eof()
            print("half-close", await p.stdout.read(), (await p.wait()).exit_status)


asyncio.run(main())
