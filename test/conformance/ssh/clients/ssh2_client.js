// What node's ssh2 does with a server; prints what it saw. It shows no certificates, so it runs over a proxy command.
const { Client } = require('ssh2');
const { spawn } = require('child_process');
const fs = require('fs');
const { Duplex } = require('stream');
const e = process.env;

function sock() {
  if (!e.SIDE_PROXY) return undefined;
  const [cmd, ...args] = e.SIDE_PROXY.split(' ');
  const p = spawn(cmd, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  return Duplex.from({ writable: p.stdin, readable: p.stdout });
}
const c = new Client();
const exec = (command, input, options = {}) => new Promise((resolve, reject) => {
  c.exec(command, options, (err, s) => {
    if (err) return reject(err);
    let out = 0, text = '', errs = '', atExit = -1;
    s.on('data', (d) => { out += d.length; if (text.length < 200) text += d; });
    s.stderr.on('data', (d) => { errs += d; });
    s.on('exit', (code, signal) => { atExit = out; s.exitWas = [code, signal]; });
    // All of the output is here before the exit status, by way of the gateway. sshd itself may tell the status first.
    s.on('close', () => resolve({ out, atExit: out > 200 ? atExit === out || !e.SIDE_PROXY || atExit : undefined, text: out < 200 ? text : '', errs, exit: s.exitWas }));
    s.end(input);
  });
});
const promise = (f) => new Promise((resolve, reject) => f((err, v) => err ? reject(err) : resolve(v)));
c.on('ready', async () => {
  try {
    console.log('exec', await exec('cat; echo err >&2; exit 7', 'input\n'));
    console.log('3MB', await exec('head -c 3000000 /dev/zero; exit 5', ''));
    console.log('signal', await exec('kill -TERM $$', ''));
    console.log('terminal', await exec('stty size; exit 2', '', { pty: { rows: 30, cols: 90 } }));
    console.log('parallel', JSON.stringify(await Promise.all([...Array(20).keys()].map((n) => exec(`echo ${n}; exit ${n}`, '')))));
    const sftp = await promise((f) => c.sftp(f));
    const name = e.SIDE_WORK + '/ssh2';
    const blob = Buffer.alloc(3000000, 'abcdefgh');
    fs.writeFileSync(name, blob);
    await promise((f) => sftp.fastPut(name, name + '.there', f));
    await promise((f) => sftp.fastGet(name + '.there', name + '.back', f));
    console.log('sftp', (await promise((f) => sftp.stat(name + '.there', f))).size, fs.readFileSync(name + '.back').equals(blob));
    await promise((f) => sftp.stat('/nonexistent', f)).catch((x) => console.log('missing', x.code));
    c.end();
  } catch (x) { console.log('FAILED', x.message); process.exit(1); }
});
c.on('error', (x) => { console.log('FAILED', x.message); process.exit(1); });
c.on('close', () => process.exit(0));
c.connect({ host: e.SIDE_HOST, port: +e.SIDE_PORT, username: e.SIDE_USER, privateKey: fs.readFileSync(e.SIDE_KEY), sock: sock(),
  hostVerifier: (key) => key.toString('base64') === e.SIDE_HOSTKEY.split(' ')[1] });
