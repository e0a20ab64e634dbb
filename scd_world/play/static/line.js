// The line to the server: orders out, what it says and its frames in, in their order. It is taken up again
// when it is lost.

const AGAIN_MS = [300, 1000, 2000, 4000];
const FULL = 1013; // the server has no place
const PAGE = Math.random().toString(36).slice(2); // a copied tab has the same storage, and is another page

export class Line {
  /** heard: called with each JSON message; shown: with each frame's header and pictures (ImageBitmaps). */
  constructor(heard, shown, lost) {
    Object.assign(this, { heard, shown, lost, tries: 0, queue: Promise.resolve() });
    this.connect();
  }

  connect() {
    const asked = new URLSearchParams({ player: sessionStorage.getItem("scd-player") || "", page: PAGE });
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/drive?${asked}`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => { this.tries = 0; };
    this.socket.onmessage = ({ data }) => {
      const arrived = typeof data === "string" ? JSON.parse(data) : unpack(data);
      this.queue = this.queue.then(() => this.take(arrived)).catch((error) => console.error(error));
    };
    this.socket.onclose = ({ code }) => {
      this.lost(code === FULL);
      const wait = code === FULL ? 8000 : AGAIN_MS[Math.min(this.tries++, AGAIN_MS.length - 1)];
      setTimeout(() => this.connect(), wait);
    };
  }

  async take(arrived) {
    if (!arrived.blobs) {
      if (arrived.player) sessionStorage.setItem("scd-player", arrived.player);
      this.heard(arrived);
      return;
    }
    const pictures = await Promise.all(arrived.blobs.map((blob) => createImageBitmap(blob)));
    this.shown(arrived.header, pictures);
    this.order("drawn", { id: arrived.header.id });
  }

  order(name, values = {}) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ do: name, ...values }));
  }
}

/** A frame as protocol.py packs it: length, JSON header, PNGs. */
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  const blobs = header.sizes.map((size) => {
    const blob = new Blob([new Uint8Array(buffer, at, size)], { type: "image/png" });
    at += size;
    return blob;
  });
  return { header, blobs };
}
