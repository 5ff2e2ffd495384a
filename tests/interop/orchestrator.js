// node orchestrator.js SOCKET BACKEND LOG: runs one VM and decides its conversions.
//
// It may be killed at any moment and started again: LOG has every event that it was shown, one a
// line, and the last line's cursor is where it goes on. An event is in LOG before it is acted upon;
// what was not acted upon is decided first thing next time. Exit code: the guest's.
'use strict';

const fs = require('fs');
const {connect, call, explain, reasonOf} = require('./twinroot.js');

const [socket, backend, log] = process.argv.slice(2);
const VM = 'orchestrated';
const DENIED_FROM = 0x600000n;
const ROUNDS = 40;

// Each vCPU asks in turn for what is approved (by a MapGPA and by an access) and what is denied.
function program() {
  const vcpu = (index) => {
    const mine = String(0x400000 + index * 0x100000), never = String(0x600000 + index * 0x100000);
    const map = (gpa, pages, kind) => ({mapGpa: {gpa, pages, kind: `MEMORY_KIND_${kind}`}});
    const expect = (value) => ({expect: {value}});
    return {
      steps: [{
        loop: {
          count: ROUNDS,
          steps: [
            map(mine, 2, 'SHARED'), expect('0'),
            map(mine, 2, 'PRIVATE'), expect('0'),
            map(never, 16, 'SHARED'), expect('18446744073709551615'),  // -1: denied
            {read: {gpa: mine, alias: 'MEMORY_KIND_SHARED', expect: '0'}},
            map(mine, 1, 'PRIVATE'), expect('0'),
          ],
        },
      }],
    };
  };
  return {vcpus: [vcpu(0), vcpu(1)]};
}

function definition() {
  return {
    vmId: VM,
    vm: {
      memoryBytes: 16 << 20,
      vcpus: 2,
      backend: `BACKEND_${backend.toUpperCase()}`,
      program: program(),
      conversionPolicy: {mode: 'MODE_ORCHESTRATOR', decisionTimeout: {seconds: 60}},
    },
  };
}

// The whole lines of LOG; half a line, cut by a kill, is taken away.
function readLog() {
  if (!fs.existsSync(log)) return [];
  const text = fs.readFileSync(log, 'utf8');
  const whole = text.lastIndexOf('\n') + 1;
  fs.truncateSync(log, Buffer.byteLength(text.slice(0, whole)));
  return text.slice(0, whole).split('\n').slice(0, -1).map((line) => JSON.parse(line));
}

// One write for all of them.
function append(entries) {
  if (entries.length) {
    fs.appendFileSync(log, entries.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
  }
}

// A promise that also accepts one reason of failure: what an earlier life has done already.
async function unlessDone(reason, promise) {
  try {
    await promise;
  } catch (error) {
    if (reasonOf(error) !== reason) throw error;
  }
}

async function decide(clients, requests, fresh) {
  for (const decision of ['DECISION_APPLY', 'DECISION_DENY']) {
    const ids = requests
                    .filter(({gpa}) => (BigInt(gpa) < DENIED_FROM) === (decision === 'DECISION_APPLY'))
                    .map(({id}) => id);
    if (!ids.length) continue;
    const {results} = await call(clients.event, 'resolveConversion', {vm: VM, ids, decision});
    for (const {id, outcome} of results) {
      if (fresh && outcome !== 'OUTCOME_DECIDED') throw new Error(`conversion ${id}: ${outcome}`);
    }
  }
}

async function main() {
  const clients = connect(socket);
  const known = readLog();
  if (!known.length) {
    // From here on nothing is missed.
    known.push({cursor: (await call(clients.vm, 'listVms', {})).cursor});
    append(known);
  }
  const waiting = new Map();
  const look = (event) => {
    if (event.vm !== VM) return;
    if (event.conversionRequested) waiting.set(event.conversionRequested.id, event.conversionRequested);
    if (event.conversion) waiting.delete(event.conversion.id);
  };
  known.forEach(look);
  await unlessDone('VM_EXISTS', call(clients.vm, 'createVm', definition()));
  await unlessDone('WRONG_STATE', call(clients.vm, 'startVm', {name: `vms/${VM}`}));
  await decide(clients, [...waiting.values()], false);

  const stream = clients.event.watchEvents({startCursor: known.at(-1).cursor});
  for await (const {events} of stream) {
    append(events);
    events.forEach(look);
    const end = events.find(({vm, vmState}) => vm === VM && vmState?.state === 'STATE_STOPPED');
    if (end) {
      stream.cancel();
      return end.vmState.exitCode ?? 125;
    }
    await decide(clients,
                 events.filter(({vm, conversionRequested}) => vm === VM && conversionRequested)
                     .map(({conversionRequested}) => conversionRequested)
                     .filter(({id}) => waiting.has(id)),
                 true);
  }
  throw new Error('the stream ended before the VM did');
}

main().then((code) => process.exit(code), (error) => {
  console.error(error, explain(error));
  process.exit(70);
});
