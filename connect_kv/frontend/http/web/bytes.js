// Keys and values are bytes. Here they are "byte strings": strings whose characters are 0 to 255.

/** @param {string} text @returns {string} its UTF-8 as a byte string */
export function fromText(text) {
  return binary(new TextEncoder().encode(text));
}

/** @param {Uint8Array} bytes @returns {string} */
function binary(bytes) {
  const parts = [];
  for (let at = 0; at < bytes.length; at += 8192) {
    parts.push(String.fromCharCode(...bytes.subarray(at, at + 8192)));
  }
  return parts.join('');
}

/** @param {string} bytes @returns {Uint8Array} */
function array(bytes) {
  return Uint8Array.from(bytes, (one) => one.charCodeAt(0));
}

/** @param {string|undefined} base64 as the gateway has it @returns {string} */
export function decode(base64) {
  return atob(base64 || '');
}

/** @param {string} bytes @returns {string} base64 */
export function encode(bytes) {
  return btoa(bytes);
}

/** @param {string} bytes @returns {string|null} null for what is no UTF-8 */
export function asText(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(array(bytes));
  } catch {
    return null;
  }
}

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** For one line: what cannot be seen, or turns the line around, is written out. @param {string} bytes */
export function shown(bytes) {
  const text = asText(bytes);
  if (text === null) {
    return bytes.replace(/[^ -~]/g, (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, '0')}`);
  }
  return text.replace(UNSEEN, (one) => {
    const code = one.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

/** @param {string} bytes @returns {string} lines of sixteen bytes, with what is readable beside them */
export function asHex(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const part = bytes.slice(at, at + 16);
    const codes = Array.from(part, (one) => one.charCodeAt(0).toString(16).padStart(2, '0')).join(' ');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${codes.padEnd(47)}  ${part.replace(/[^ -~]/g, '.')}`);
  }
  return lines.join('\n');
}

/** For the address bar. @param {string} bytes */
export function toAddress(bytes) {
  return bytes.replace(/[^A-Za-z0-9_.~/:-]/g, (one) => `%${one.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** @param {string} text */
export function fromAddress(text) {
  const plain = fromText(text.replace(/%[0-9a-f]{2}/gi, '\0$&'));
  return plain.replace(/\0%([0-9a-f]{2})/gi, (_, code) => String.fromCharCode(parseInt(code, 16)));
}

/** The first key after all that begin so; empty: there is none. @param {string} prefix */
export function prefixEnd(prefix) {
  const kept = prefix.replace(/\xff+$/, '');
  if (!kept) return '';
  return kept.slice(0, -1) + String.fromCharCode(kept.charCodeAt(kept.length - 1) + 1);
}

/** Key and range_end of all that begin so, from `from` on. @param {string} prefix @param {string} [from] */
export function rangeOf(prefix, from) {
  return { key: encode(from || prefix || '\0'), range_end: encode(prefixEnd(prefix) || '\0') };
}
