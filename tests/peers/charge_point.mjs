// A charge controller for the tests, built on the client of the npm package `ocpp-rpc`, which comes back by itself
// whenever the connection is lost. It takes the options and the commands of charge_point.py, and answers them alike.

import { EventEmitter, once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { Asked, camelCase, snakeCase, transcript } from './common.mjs';

// By NODE_PATH, which an import doesn't look at.
const require = createRequire(import.meta.url);
const { RPCClient, RPCError, TimeoutError, createRPCError } = require('ocpp-rpc');

const ANSWER_SECONDS = 20;
const RECONNECT_MS = 100;
const BOOT_16 = { chargePointVendor: 'ACME', chargePointModel: 'Wallbox 3000', firmwareVersion: '1.2.3' };
const BOOT_2 = { chargingStation: { vendorName: 'ACME', model: 'Wallbox 3000' }, reason: 'PowerUp' };
// What it is asked over OCPP 1.6, and what it answers. Over later versions it can't do anything.
const ANSWERS = {
    CancelReservation: { status: 'Rejected' },
    ChangeAvailability: { status: 'Scheduled' },
    ClearCache: { status: 'Accepted' },
    ClearChargingProfile: { status: 'Unknown' },
    DataTransfer: { status: 'Accepted', data: 'señal ✓' },
    GetCompositeSchedule: { status: 'Rejected' },
    GetDiagnostics: { fileName: 'diagnostics.zip' },
    GetLocalListVersion: { listVersion: 7 },
    RemoteStartTransaction: { status: 'Accepted' },
    RemoteStopTransaction: { status: 'Accepted' },
    ReserveNow: { status: 'Occupied' },
    Reset: { status: 'Rejected' },
    SendLocalList: { status: 'Accepted' },
    SetChargingProfile: { status: 'Accepted' },
    TriggerMessage: { status: 'NotImplemented' },
    UnlockConnector: { status: 'Unlocked' },
    UpdateFirmware: {},
};

const { values: options } = parseArgs({
    options: {
        endpoint: { type: 'string' },
        identity: { type: 'string' },
        password: { type: 'string', default: '' },
        protocols: { type: 'string', default: 'ocpp1.6' },
        ca: { type: 'string' },
    },
});

const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const configuration = new Map([['HeartbeatInterval', '300'], ['NumberOfConnectors', '2'], ['Ünïcode', 'täst ⚡']]);
const counts = { connections: 0, refused: 0, lost: 0, boots: 0 };
const counted = new EventEmitter();
const [received, sent, endings, asked] = [[], [], [], new Asked()];
let connected = false;
let away = false;

const count = (name) => {
    counts[name] += 1;
    counted.emit('change');
};

// === the CSMS's side ===

const client = new RPCClient({
    endpoint: options.endpoint,
    identity: options.identity,
    password: options.password === '' ? null : Buffer.from(options.password, 'hex'),
    protocols: options.protocols.split(','),
    callTimeoutMs: ANSWER_SECONDS * 1000,
    backoff: { initialDelay: RECONNECT_MS, maxDelay: 5 * RECONNECT_MS, factor: 2, randomisationFactor: 0.25 },
    wsOpts: options.ca === undefined ? {} : { ca: readFileSync(options.ca) },
});

client.on('message', ({ message, outbound }) => {
    (outbound ? sent : received).push(message);
    if (!outbound) asked.heard(message);
});
client.on('open', async () => {
    connected = true;
    count('connections');
    try {
        await client.call('BootNotification', client.protocol === 'ocpp1.6' ? BOOT_16 : BOOT_2);
        count('boots');
    } catch {
        // The connection is gone already; there will be another.
    }
});
client.on('disconnect', ({ code, reason }) => {
    if (!connected) return;
    connected = false;
    endings.push({ code, reason });
    count('lost');
});
client.handle(({ method, params }) => {
    if (client.protocol !== 'ocpp1.6') throw createRPCError('NotImplemented');
    if (method === 'ChangeConfiguration') {
        const known = configuration.has(params.key);
        if (known) configuration.set(params.key, params.value);
        return { status: known ? 'Accepted' : 'NotSupported' };
    }
    if (method === 'GetConfiguration') {
        const wanted = params.key?.length ? params.key : [...configuration.keys()];
        const entry = (key) => ({ key, readonly: key === 'NumberOfConnectors', value: configuration.get(key) });
        return {
            configurationKey: wanted.filter((key) => configuration.has(key)).map(entry),
            unknownKey: wanted.filter((key) => !configuration.has(key)),
        };
    }
    if (ANSWERS[method] === undefined) throw createRPCError('NotImplemented');
    return ANSWERS[method];
});

// The library comes back by itself only once it was connected.
async function live() {
    away = false;
    while (!connected && !away) {
        try {
            await client.connect();
        } catch (error) {
            if (Number.isInteger(error.code)) {
                endings.push({ status: error.code });
                count('refused');
            }
            await sleep(RECONNECT_MS);
        }
    }
}

// === the test's side ===

async function call(action, payload) {
    try {
        return { answer: snakeCase(await client.call(action, payload)) };
    } catch (error) {
        if (error instanceof TimeoutError) return { failed: 'no answer in time' };
        if (error instanceof RPCError) return { error: { code: error.rpcErrorCode, description: error.message } };
        throw error;
    }
}

async function waitFor({ for: name, count: least, seconds }) {
    const signal = AbortSignal.timeout(seconds * 1000);
    while (counts[name] < least) {
        try {
            await once(counted, 'change', { signal });
        } catch {
            return { failed: 'no answer in time' };
        }
    }
    return { answer: counts };
}

async function say({ text, until }) {
    const answer = until === null ? null : asked.answer(until, ANSWER_SECONDS);
    client.sendRaw(text);
    return { answer: await answer };
}

async function obey(command) {
    switch (command.do) {
        case 'counts':
            return { answer: { ...counts, connected } };
        case 'wait':
            return waitFor(command);
        case 'frames':
            return { answer: received };
        case 'transcript':
            return { answer: transcript(received, sent) };
        case 'endings':
            return { answer: endings };
        case 'connect':
            live();
            return { answer: {} };
    }
    if (!connected) return { failed: 'not connected' };
    switch (command.do) {
        case 'call':
            return call(command.action, camelCase(command.payload));
        case 'say':
            return say(command);
        case 'subprotocol':
            return { answer: client.protocol };
        case 'close':
            away = true;
            await client.close({ code: command.code ?? 1000, reason: command.reason ?? '' });
            return { answer: {} };
    }
    return { failed: `unknown command ${command.do}` };
}

live();
tell({ answer: {} });

for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
        answer = await obey(JSON.parse(line));
    } catch (error) {
        // Reported to the test, which knows what to make of it.
        answer = { failed: String(error) };
    }
    tell(answer);
}
process.exit(0);
