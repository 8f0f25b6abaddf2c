"""dockerode, the Docker client of Node.js."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import clients
import pytest
from engines import PrivateEngine

pytestmark = [pytest.mark.root, pytest.mark.peers]

PROGRAM = """
const Docker = require('dockerode');
const { PassThrough } = require('stream');
const docker = new Docker({ socketPath: process.argv[2] });
const text = (stream) => new Promise((done) => {
  const parts = [];
  stream.on('data', (d) => parts.push(d));
  stream.on('end', () => done(Buffer.concat(parts).toString()));
});
(async () => {
  const said = {};
  await new Promise((done, fail) => docker.pull('alpine:latest', (error, stream) =>
    error ? fail(error) : docker.modem.followProgress(stream, (e, out) => (e ? fail(e) : done(out)))));
  said.images = (await docker.listImages()).length;
  const out = new PassThrough(), err = new PassThrough();
  const outText = text(out), errText = text(err);
  const [result, run] = await docker.run('alpine', ['sh', '-c', 'echo out; echo err >&2; exit 3'], [out, err],
    { Tty: false, HostConfig: { NetworkMode: 'none' } });
  out.end(); err.end();
  said.run = [result.StatusCode, await outText, await errText];
  await run.remove();
  const made = await docker.createContainer({ Image: 'alpine', name: 'node', Cmd: ['cat'], OpenStdin: true,
    StdinOnce: true, AttachStdin: true, AttachStdout: true, Labels: { from: 'node' } });
  const stream = await made.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const echoed = new PassThrough(); const echoedText = text(echoed);
  made.modem.demuxStream(stream, echoed, echoed);
  await made.start();
  stream.end('through stdin');
  said.wait = (await made.wait()).StatusCode;
  stream.on('end', () => echoed.end()); if (stream.readableEnded || stream.destroyed) echoed.end();
  said.echo = await echoedText;
  await made.remove();
  const long = await docker.createContainer({ Image: 'alpine', Cmd: ['sleep', '1000'] });
  await long.start();
  const exec = await long.exec({ Cmd: ['sh', '-c', 'echo in exec'], AttachStdout: true, AttachStderr: true });
  const execStream = await exec.start({});
  const execOut = new PassThrough(); const execText = text(execOut);
  long.modem.demuxStream(execStream, execOut, execOut);
  await new Promise((done) => execStream.on('end', done)); execOut.end();
  said.exec = [await execText, (await exec.inspect()).ExitCode];
  said.stats = typeof (await long.stats({ stream: false })).memory_stats.usage;
  said.top = (await long.top()).Processes.length;
  await long.putArchive(await long.getArchive({ path: '/etc/hostname' }), { path: '/tmp' });
  said.state = (await long.inspect()).State.Running;
  await long.kill(); await long.remove({ force: true });
  const network = await docker.createNetwork({ Name: 'of-node' });
  said.networks = (await docker.listNetworks({ filters: { name: ['of-node'] } })).length;
  await network.remove();
  const volume = await docker.createVolume({ Name: 'of-node' });
  said.volume = volume.name || volume.Name;
  await docker.getVolume('of-node').remove();
  try { await docker.getContainer('nobody').inspect(); } catch (error) { said.missing = error.statusCode; }
  const events = await docker.getEvents({ since: 1, until: Math.floor(Date.now() / 1000) + 1 });
  said.events = (await text(events)).includes('"Action":"die"');
  console.log(JSON.stringify(said));
})().catch((error) => { console.error(error); process.exit(1); });
"""


def test_what_programs_do(hub: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "program.js").write_text(PROGRAM)
    env = {**hub.env, "NODE_PATH": str(clients.dockerode() / "node_modules")}
    argv = ["node", str(tmp_path / "program.js"), hub.socket.removeprefix("unix://")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("images") >= 1
    assert said == {
        "run": [3, "out\n", "err\n"],
        "wait": 0,
        "echo": "through stdin",
        "exec": ["in exec\n", 0],
        "stats": "number",
        "top": 1,
        "state": True,
        "networks": 1,
        "volume": "of-node",
        "missing": 404,
        "events": True,
    }
    assert hub.containers() == []
