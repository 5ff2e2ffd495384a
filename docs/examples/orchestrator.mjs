// A small orchestrator in Node.js. docs/orchestrator.md shows it piece by piece: a mark such as
// [create] begins a piece, [end] ends it. orchestrator.cc beside it does and prints the same.
//
//   node orchestrator.mjs ENDPOINT tour FOLDER   runs a VM, decides its conversions, copies it,
//                                                deletes it; FOLDER has guest.json, what it executes
//   node orchestrator.mjs ENDPOINT watch LOG     follows the events; LOG has each of them once
//
// ENDPOINT: unix:/run/twinroot/hvd.sock, or host:port with ca.pem, client.pem and client.key in the
// folder that the variable TLS names.
import {randomUUID} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {Backoff, call, connect, explain, listVms, reasonOf, watch} from './client.mjs';

// What guest.json asks for, in this order.
const BUFFER = 0x400000, DENIED = 0x600000, LEFT_ALONE = 0x700000, LAST = 0x710000,
      QUICKLY = 0x720000, TOO_MUCH = 0x800000, IMPLICIT = 0x730000;
const BUFFER_SIZE = 1 << 20;

const hex = (gpa) => `0x${Number(gpa).toString(16)}`;

// [create]
// With a policy that leaves each conversion to us, for a second at most.
async function create(hvd, program) {
  const request = {
    vmId: 'guest',
    vm: {
      memoryBytes: 16 << 20,
      vcpus: 1,
      backend: 'BACKEND_SIM',
      program,
      conversionPolicy: {
        mode: 'MODE_ORCHESTRATOR',
        decisionTimeout: {seconds: 1},
        onTimeout: 'ON_TIMEOUT_DENY',
      },
    },
  };
  await call(hvd.vm, 'createVm', {...request, validateOnly: true});  // would it be taken?
  request.requestId = randomUUID();
  const {vm} = await call(hvd.vm, 'createVm', request);
  // As if the answer had been lost on the way: nothing is made twice.
  const again = await call(hvd.vm, 'createVm', request);
  const same = again.vm.etag === vm.etag ? 'the same answer' : 'ANOTHER ANSWER';
  console.log(`created ${vm.name}, and once more: ${same}`);
  return vm;
}
// [end]

// [decide]
async function decide(hvd, {id, gpa}) {
  let decision = 'DECISION_APPLY';
  if (Number(gpa) === DENIED) {
    decision = 'DECISION_DENY';
  } else if (Number(gpa) === LEFT_ALONE) {
    return;  // its deadline decides, by the policy's onTimeout
  } else if (Number(gpa) === LAST) {
    // From the next request on hvd decides itself, at once, within a quota.
    await call(hvd.vm, 'updateVm', {
      vm: {name: 'vms/guest', conversionPolicy: {mode: 'MODE_AUTO', maxSharedBytes: 2 << 20}},
      updateMask: {paths: ['conversion_policy']},
    });
  }
  const {results} =
      await call(hvd.event, 'resolveConversion', {vm: 'guest', ids: [id], decision});
  for (const result of results) {
    // ALREADY_DECIDED and EXPIRED are no errors: somebody, or the clock, was faster.
    if (result.outcome !== 'OUTCOME_DECIDED') console.log(`conversion ${id}: ${result.outcome}`);
  }
}

// What waits now. After a gap, or a start over, nobody else tells.
async function decideWaiting(hvd) {
  const {conversions} = await call(hvd.event, 'listConversions', {vm: 'guest'});
  for (const asked of conversions) {
    if (asked.state === 'STATE_WAITING') await decide(hvd, asked);
  }
}

// False: the guest has got all that it asks for.
async function handleEvent(hvd, {vm, gap, conversionRequested, conversion: done}) {
  if (gap) await decideWaiting(hvd);
  if (vm !== 'guest') return true;
  if (conversionRequested) await decide(hvd, conversionRequested);
  if (!done) return true;
  console.log(`conversion ${done.id} of ${hex(done.gpa)} +${done.size} ${done.cause}: ` +
              `${done.decision} by ${done.decider}`);
  return Number(done.gpa) !== IMPLICIT;
}
// [end]

// [attributes]
async function makePrivateAgain(hvd) {
  const request = {
    vm: 'guest',
    kind: 'MEMORY_KIND_PRIVATE',
    ranges: [LAST, QUICKLY, TOO_MUCH].map((gpa) => ({gpa, size: 4096})),
  };
  // What would it cost?
  const {plan} = await call(hvd.memory, 'setMemoryAttributes', {...request, validateOnly: true});
  console.log(`it would discard ${plan.bytesDiscarded} bytes`);

  const {perRange} =
      await call(hvd.memory, 'setMemoryAttributes', {...request, requestId: randomUUID()});
  perRange.forEach(({outcome, detail, converted}, i) => {  // in the order of the request
    const why = detail && `: ${detail}`;  // if it was refused
    console.log(
        `${hex(request.ranges[i].gpa)}: ${outcome}, ${converted.length} converted${why}`);
  });
}
// [end]

// [harvest]
const pagesOf = (ranges) => ranges.reduce((sum, {size}) => sum + Number(size) / 4096, 0);

// What was written and is not clean again. A stream that fails has taken nothing.
async function harvest(hvd) {
  for (const backoff = new Backoff();;) {
    try {
      const ranges = [];
      for await (const {runs} of hvd.dirtyLog.harvestDirtyLog({vm: 'guest'})) ranges.push(...runs);
      return ranges;
    } catch (error) {
      if (!await backoff.wait(error)) throw error;
    }
  }
}

async function clear(hvd, ranges) {
  const most = 16_384;  // Host.maxRanges
  for (let first = 0; first < ranges.length; first += most) {
    await call(hvd.dirtyLog, 'clearDirtyLog',
               {vm: 'guest', ranges: ranges.slice(first, first + most)});
  }
}
// [end]

// [copy]
// What of a range may be read: private memory is given to nobody.
async function sharedPartsOf(hvd, range) {
  const shared = [];
  for await (const {runs} of hvd.memory.getMemoryAttributes({vm: 'guest', range})) {
    shared.push(...runs.filter(({kind}) => kind === 'MEMORY_KIND_SHARED'));
  }
  return shared;
}

async function copy(hvd, ranges, target) {
  const most = 1 << 20;  // Host.maxTransferBytes
  for (const range of ranges) {
    for (const part of await sharedPartsOf(hvd, range)) {
      const end = Number(part.gpa) + Number(part.size);
      for (let gpa = Number(part.gpa); gpa < end; gpa += most) {
        const size = Math.min(most, end - gpa);
        const {data} = await call(hvd.memory, 'readGuestMemory', {vm: 'guest', gpa, size});
        data.copy(target, gpa);
      }
    }
  }
}
// [end]

// [migrate]
// Copies while the guest writes, until little is left to copy while it stands still.
async function migrate(hvd) {
  const fewPages = 64, mostRounds = 30;
  const target = Buffer.alloc(16 << 20);
  await call(hvd.dirtyLog, 'enableDirtyLog', {
    vm: 'guest',
    manualClear: true,
    initiallyAllSet: true,  // the first harvest is all memory
    requestId: randomUUID(),
  });

  for (let round = 0; round < mostRounds; ++round) {
    const dirty = await harvest(hvd);
    if (pagesOf(dirty) <= fewPages) break;
    await clear(hvd, dirty);  // before the copy: a write during the copy is told next time
    await copy(hvd, dirty, target);
  }

  await call(hvd.vm, 'pauseVm', {name: 'vms/guest'});
  const rest = await harvest(hvd);
  await copy(hvd, rest, target);
  console.log(`${pagesOf(rest)} pages were left for the pause`);
  return target;  // the guest may go on there; a failure before this line harms nothing
}
// [end]

// What the pre-copy must come to: every byte that the guest shares.
async function compare(hvd, target) {
  const truth = Buffer.alloc(target.length);
  await copy(hvd, [{gpa: BUFFER, size: BUFFER_SIZE}], truth);
  const end = BUFFER + BUFFER_SIZE;
  const same = truth.subarray(BUFFER, end).equals(target.subarray(BUFFER, end));
  const written = truth.some((byte) => byte !== 0);
  console.log(`the copy is ${same && written ? 'what the guest shares' : 'WRONG'}`);
}

// [etag]
// Changes labels by what they are now; if somebody else is faster, looks again.
async function countMigration(hvd) {
  for (;;) {
    const {vm} = await call(hvd.vm, 'getVm', {name: 'vms/guest'});
    const migrations = String(Number(vm.labels.migrations ?? 0) + 1);
    try {
      await call(hvd.vm, 'updateVm', {
        vm: {name: vm.name, etag: vm.etag, labels: {...vm.labels, migrations}},
        updateMask: {paths: ['labels']},
      });
      console.log(`migrations: ${migrations}`);
      return;
    } catch (error) {
      if (reasonOf(error) !== 'ETAG_MISMATCH') throw error;
    }
  }
}
// [end]

// [errors]
async function refused(promise) {
  await promise.then(() => console.log('IT WAS NOT REFUSED'),
                     (error) => console.log(`refused: ${explain(error)}`));
}

async function mistakes(hvd, oldEtag) {
  await refused(call(hvd.vm, 'getVm', {name: 'vms/nobody'}));
  await refused(call(hvd.vm, 'startVm', {name: 'vms/guest'}));  // it runs already
  await refused(call(hvd.memory, 'setMemoryAttributes', {
    vm: 'guest',
    kind: 'MEMORY_KIND_SHARED',
    ranges: [{gpa: 0, size: 4096}, {gpa: 0x1234, size: 4096}],  // not a multiple of 4096
  }));
  await refused(call(hvd.vm, 'updateVm', {
    vm: {name: 'vms/guest', etag: oldEtag},  // of when it was made
    updateMask: {paths: ['labels']},
  }));
}
// [end]

async function tour(hvd, folder) {
  const program = JSON.parse(fs.readFileSync(path.join(folder, 'guest.json')));
  // [run]
  const {cursor} = await listVms(hvd);  // before anything happens, so that nothing of it is missed
  const created = await create(hvd, program);
  await call(hvd.vm, 'startVm', {name: 'vms/guest', requestId: randomUUID()});
  await watch(hvd, cursor, (event) => handleEvent(hvd, event), async () => {
    const {cursor} = await listVms(hvd);
    await decideWaiting(hvd);
    return cursor;
  });
  // [end]
  await makePrivateAgain(hvd);
  await compare(hvd, await migrate(hvd));
  await countMigration(hvd);
  await mistakes(hvd, created.etag);
  await call(hvd.vm, 'deleteVm', {name: 'vms/guest', requestId: randomUUID()});
  console.log('deleted');
}

// [log]
// A line for each event: its cursor, its VM, its kind. The line is the effect and the cursor in one
// write, so that whoever is killed has done each event once.
class Log {
  constructor(file) {
    const text = fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '';
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);  // a kill may have cut the last line
    if (whole.length < text.length) fs.truncateSync(file, whole.length);
    this.cursor = whole.split('\n').at(-2)?.split(' ')[0];
    this.file = fs.openSync(file, 'a');
  }

  add(cursor, what) {
    fs.writeSync(this.file, `${cursor} ${what}\n`);
    this.cursor = cursor;
  }
}

async function follow(hvd, file) {
  const log = new Log(file);
  const startOver = async () => {
    const {vms, cursor} = await listVms(hvd);
    log.add(cursor, `- start over with ${vms.length} VMs`);
    return cursor;
  };
  await watch(hvd, log.cursor ?? await startOver(), ({cursor, vm, kind, gap}) => {
    const name = kind?.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    log.add(cursor, gap ? `- gap of ${gap.count}` : `${vm || '-'} ${name ?? 'of a later version'}`);
    return true;
  }, startOver);
}
// [end]

const [endpoint, command, place] = process.argv.slice(2);
const commands = {tour, watch: follow};
if (!place || !commands[command]) {
  console.error('usage: orchestrator.mjs ENDPOINT tour FOLDER | ENDPOINT watch LOG');
  process.exit(2);
}
commands[command](connect(endpoint), place).then(() => process.exit(0), (error) => {
  console.error(`orchestrator: ${explain(error)}: ${error.details ?? error.stack}`);
  process.exit(1);
});
