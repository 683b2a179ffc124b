// How numbers and times look.

/** @param {string|number|undefined} value as the gateway has it: nothing is 0 */
export function num(value) {
  return Number(value || 0);
}

/** @param {number} value */
export function count(value) {
  return Math.round(value).toLocaleString('en');
}

/** @param {number} value few digits, as of a rate */
export function short(value) {
  if (value >= 10000) return `${(value / 1000).toFixed(0)}k`;
  if (value >= 100) return value.toFixed(0);
  if (value >= 1) return value.toFixed(1);
  return value === 0 ? '0' : value.toFixed(value < 0.01 ? 3 : 2);
}

/** @param {number} size */
export function bytes(size) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (size >= 1024 && at < units.length - 1) {
    size /= 1024;
    at += 1;
  }
  return `${at && size < 100 ? size.toFixed(1) : Math.round(size)} ${units[at]}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** @param {number} nanoseconds since 1970 */
export function time(nanoseconds) {
  const date = new Date(nanoseconds / 1e6);
  const clock = date.toLocaleTimeString('en-GB');
  return date.toDateString() === new Date().toDateString() ? clock : `${date.toLocaleDateString('en-CA')} ${clock}`;
}

/** An id of a lease or a member, as everything else writes it. @param {string|undefined} id */
export function hex(id) {
  return BigInt(id || 0).toString(16);
}

/** @param {number} number @param {string} one @param {string} [many] */
export function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many || `${one}s`}`;
}

/** @param {number} value @param {string} unit of a series */
export function ofUnit(value, unit) {
  if (unit === 'bytes') return bytes(value);
  if (unit === '1/s') return `${short(value)}/s`;
  return unit ? `${short(value)} ${unit}` : count(value);
}
