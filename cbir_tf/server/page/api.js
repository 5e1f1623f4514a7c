// Requests to the service. Addresses are relative to the page's, which may be below a proxy's path.

const KEY = `cbir-tf API key of ${location.pathname}`; // a proxy may have several services

/** A request that was not answered, in words. */
export class Problem extends Error {
  /**
   * @param {string} message what is wrong
   * @param {number} status of HTTP; 0: no answer at all
   * @param {number} wait seconds after which the same request may succeed; 0: no hint
   */
  constructor(message, status, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
};

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers["X-API-Key"] = key.get();
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer.", 0);
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const wait = Number(response.headers.get("Retry-After")) || 0;
  throw new Problem(
    said.error ?? `The service answered ${response.status}.`,
    response.status,
    wait,
  );
}

/** A JSON document. */
export async function get(path, signal) {
  return (await ask(path, { signal })).json();
}

/** Bytes. */
export async function getBlob(path, signal) {
  return (await ask(path, { signal })).blob();
}

/**
 * Send fields: as a form if a picture is among them, else as JSON.
 *
 * @param {string} path
 * @param {object} fields those that are null are left out
 * @param {AbortSignal} signal
 */
export async function post(path, fields, signal) {
  const given = Object.entries(fields).filter(([, value]) => value !== null);
  let body;
  const headers = {};
  if ("file" in fields) {
    body = new FormData();
    for (const [name, value] of given) {
      for (const each of Array.isArray(value) ? value : [value]) body.append(name, each);
    }
  } else {
    body = JSON.stringify(Object.fromEntries(given));
    headers["Content-Type"] = "application/json";
  }
  return (await ask(path, { method: "POST", body, headers, signal })).json();
}

/** Where a stored picture is. */
export const imageAddress = (id) => `images/${encodeURIComponent(id)}`;
export const thumbnailAddress = (id) => `thumbnails/${encodeURIComponent(id)}`;

const TRIES = 4;
const soon = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      soon.unobserve(target);
      load(target, target.dataset.address, 1);
    }
  },
  { rootMargin: "400px" },
);

/** Show a picture of the service in an <img> once it is near the view. */
export function loadPicture(image, address) {
  image.dataset.address = address;
  image.classList.remove("missing");
  soon.observe(image);
}

async function load(image, address, attempt) {
  try {
    const source = await pictureSource(address);
    if (image.dataset.address !== address) return;
    image.src = source;
    await image.decode();
    if (source.startsWith("blob:")) URL.revokeObjectURL(source);
  } catch {
    if (image.dataset.address !== address) return;
    // A long page of thumbnails can meet the limit of requests; a second later they are let in.
    if (attempt < TRIES) setTimeout(() => load(image, address, attempt + 1), 700 * attempt);
    else image.classList.add("missing");
  }
}

/** What an <img> can load: an image cannot send a key, so with one the bytes are fetched. */
export async function pictureSource(address, signal) {
  if (!key.get()) return address;
  return URL.createObjectURL(await getBlob(address, signal));
}
