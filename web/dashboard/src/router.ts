/** Views live in the address: a link opens what its sender saw. */
import { signal } from "@preact/signals";
import { filterToPath, pathToFilter } from "./core/filter.ts";

export type View = "devices" | "device" | "topics" | "live" | "quantity" | "saved" | "flash" | "publish" | "connection";

interface Route {
  view: View;
  /** The topic filter of the live view, the id of a device in its view, the name of a quantity in its, "" elsewhere. */
  filter: string;
  params: URLSearchParams;
}

/** The gateway's root as the browser sees it, with a slash at the end, whatever prefix a proxy put in front. */
export const base = new URL(
  document.querySelector<HTMLMetaElement>('meta[name="gateway-root"]')?.content ?? "./",
  location.href,
);

export function parseRoute(address: URL, root: URL): Route {
  const params = address.searchParams;
  const path = address.pathname.startsWith(root.pathname) ? address.pathname.slice(root.pathname.length) : "";
  if (path.startsWith("topics/") && path.length > "topics/".length) {
    return { view: "live", filter: pathToFilter(path.slice("topics/".length)), params };
  }
  if (path.startsWith("devices/") && path.length > "devices/".length) {
    return { view: "device", filter: pathToFilter(path.slice("devices/".length)), params };
  }
  if (path === "flash") return { view: "flash", filter: "", params };
  if (path === "topics" || path === "topics/") return { view: "topics", filter: "", params };
  const view = params.get("view");
  if (view === "quantity") return { view, filter: params.get("of") ?? "", params };
  if (view === "saved") return { view, filter: params.get("name") ?? "", params };
  if (view === "topics" || view === "publish" || view === "connection") return { view, filter: "", params };
  return { view: "devices", filter: "", params };
}

export const route = signal<Route>(parseRoute(new URL(location.href), base));

function settle(): void {
  route.value = parseRoute(new URL(location.href), base);
}

addEventListener("popstate", settle);

export function navigate(address: string | URL): void {
  history.pushState(null, "", new URL(address, base));
  scrollTo(0, 0);
  settle();
}

/**
 * Changes parameters of the present view; null or "" takes one away, a list repeats it.
 *
 * @param replace false: Back undoes it.
 */
export function setParams(changes: Record<string, string | readonly string[] | null>, replace = true): void {
  const address = new URL(location.href);
  for (const [name, value] of Object.entries(changes)) {
    address.searchParams.delete(name);
    if (value === null || value === "") continue;
    for (const item of typeof value === "string" ? [value] : value) address.searchParams.append(name, item);
  }
  // Readable addresses: commas, slashes and colons may stand as they are in a query.
  address.search = address.search.replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%2C", ",");
  if (address.href === location.href) return;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  settle();
}

const links = {
  devices: () => "./",
  device: (id: string) => `./devices/${encodeURIComponent(id)}`,
  quantity: (name: string) => `./?view=quantity&of=${encodeURIComponent(name)}`,
  topics: (at = "") => `./?view=topics${at === "" ? "" : `&at=${encodeURIComponent(at)}`}`,
  saved: (name = "", query = "") => `./?view=saved${name === "" ? "" : `&name=${encodeURIComponent(name)}`}${query}`,
  publish: (topic = "") => `./?view=publish${topic === "" ? "" : `&topic=${encodeURIComponent(topic)}`}`,
  connection: () => "./?view=connection",
  flash: () => "./flash",
  live: (filter: string, query = "") => `./topics/${filterToPath(filter)}${query}`,
};

/** Addresses of the views, absolute, for `href`. */
export const to = {
  devices: () => new URL(links.devices(), base).href,
  device: (id: string) => new URL(links.device(id), base).href,
  quantity: (name: string) => new URL(links.quantity(name), base).href,
  topics: (at?: string) => new URL(links.topics(at), base).href,
  saved: (name?: string, query?: string) => new URL(links.saved(name, query), base).href,
  publish: (topic?: string) => new URL(links.publish(topic), base).href,
  flash: () => new URL(links.flash(), base).href,
  connection: () => new URL(links.connection(), base).href,
  live: (filter: string, query?: string) => new URL(links.live(filter, query), base).href,
};

/** Follows plain clicks on links of our own without loading the page again. */
export function followLinks(root: HTMLElement): void {
  root.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
    const link = (event.target as Element | null)?.closest?.("a");
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (!link.pathname.startsWith(base.pathname) || link.dataset.out !== undefined) return;
    event.preventDefault();
    navigate(link.href);
  });
}
