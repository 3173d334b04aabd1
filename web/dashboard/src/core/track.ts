/**
 * Where something was, and when: positions found in payloads, and how they are drawn without a map.
 *
 * A position is an object with `latitude` and `longitude`, or `lat` and `lon` (`lng`), as OwnTracks sends it, or a Point of
 * GeoJSON (RFC 7946), at the top of a payload or in one of its members. The plane is flat around the middle of what is
 * drawn: distances along it are right within a few hundred kilometres. Angles are in degrees, lengths in metres.
 */

export interface Position {
  latitude: number;
  longitude: number;
}

export interface TrackPoint extends Position {
  /** When it came, milliseconds since 1970: charts have it under the same. */
  time: number;
  /** When its sender was there. */
  moment: number;
  seq: number;
}

const record = (value: unknown): Record<string, unknown> | null =>
  value !== null && typeof value === "object" && !Array.isArray(value) ? (value as Record<string, unknown>) : null;

function position(latitude: unknown, longitude: unknown): Position | null {
  if (typeof latitude !== "number" || typeof longitude !== "number") return null;
  if (!(Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180)) return null;
  // what a receiver says that doesn't know where it is
  return latitude === 0 && longitude === 0 ? null : { latitude, longitude };
}

function ofObject(value: Record<string, unknown>): Position | null {
  // OwnTracks says of waypoints and transitions where they are, which isn't where the sender is
  if (value._type !== undefined && value._type !== "location") return null;
  if (value.type === "Feature") return ofObject(record(value.geometry) ?? {});
  if (value.type === "Point" && Array.isArray(value.coordinates))
    return position(value.coordinates[1], value.coordinates[0]);
  return position(value.latitude, value.longitude) ?? position(value.lat, value.lon ?? value.lng);
}

/** Members of a payload in which a position is looked for. */
const MAX_MEMBERS = 32;

/** The position that a payload holds; null where it holds none. */
export function positionOf(payload: unknown): Position | null {
  const top = record(payload);
  if (top === null) return null;
  const found = ofObject(top);
  if (found !== null || top._type !== undefined) return found;
  for (const inner of Object.values(top).slice(0, MAX_MEMBERS)) {
    const member = record(inner);
    const within = member && ofObject(member);
    if (within) return within;
  }
  return null;
}

const DAY_MS = 86_400_000;

/** When a payload's sender was there: OwnTracks says it (`tst`, in seconds), of others it is when they spoke. */
export function momentOf(payload: unknown, time: number): number {
  const said = record(payload)?.tst;
  return typeof said === "number" && said > 0 && said * 1000 < time + DAY_MS ? said * 1000 : time;
}

const TRACK_LIMITS = { topics: 50, points: 20_000 };

/** The tracks of topics, each in order of time; of each the newest points are kept. */
export class Tracks {
  readonly byTopic = new Map<string, TrackPoint[]>();
  /** Positions of topics for which there was no room. */
  left = 0;
  version = 0;

  constructor(private readonly limits = TRACK_LIMITS) {}

  /** Takes in a message; false where it has no position. One that is here already is not taken twice. */
  note(message: {
    topic: string;
    payload: unknown;
    time: number;
    seq: number;
    encoding?: string | undefined;
  }): boolean {
    const where = message.encoding === undefined ? positionOf(message.payload) : null;
    if (where === null) return false;
    let points = this.byTopic.get(message.topic);
    if (!points) {
      if (this.byTopic.size >= this.limits.topics) {
        this.left++;
        return true;
      }
      points = [];
      this.byTopic.set(message.topic, points);
    }
    const point = { ...where, time: message.time, moment: momentOf(message.payload, message.time), seq: message.seq };
    let at = points.length;
    while (at > 0 && (points[at - 1]?.time ?? 0) > point.time) at--;
    for (let index = at - 1; index >= 0 && points[index]?.time === point.time; index--)
      if (points[index]?.seq === point.seq) return true;
    points.splice(at, 0, point);
    // a tenth at a time: what is cut off at the front is moved
    if (points.length > this.limits.points * 1.1) points.splice(0, points.length - this.limits.points);
    this.version++;
    return true;
  }

  /** The points of a window of time. */
  between(topic: string, from: number, to: number): TrackPoint[] {
    return (this.byTopic.get(topic) ?? []).filter(({ time }) => time >= from && time <= to);
  }
}

const EARTH_M = 6_371_008.8;
const radians = (degrees: number) => (degrees * Math.PI) / 180;

/** Metres from one position to another along the ground. */
export function distance(one: Position, other: Position): number {
  const [a, b] = [radians(one.latitude), radians(other.latitude)];
  const half = (angle: number) => Math.sin(angle / 2) ** 2;
  const chord = half(b - a) + Math.cos(a) * Math.cos(b) * half(radians(other.longitude - one.longitude));
  return 2 * EARTH_M * Math.asin(Math.min(1, Math.sqrt(chord)));
}

/** How long a track is, in metres. */
export function lengthOf(points: readonly Position[]): number {
  let sum = 0;
  for (let index = 1; index < points.length; index++) {
    const [before, here] = [points[index - 1], points[index]];
    if (before && here) sum += distance(before, here);
  }
  return sum;
}

/** "350 m", "3.2 km". */
export function formatMetres(metres: number): string {
  if (metres < 999.5) return `${Math.round(metres)} m`;
  const kilometres = metres / 1000;
  return `${kilometres < 99.5 ? Number(kilometres.toFixed(1)) : Math.round(kilometres)} km`;
}

/** A position with five decimals, which is to a metre. */
export function formatPosition({ latitude, longitude }: Position): string {
  return `${latitude.toFixed(5)}, ${longitude.toFixed(5)}`;
}

export interface Plane {
  /** Where a position is drawn, in pixels from the left and from the top. */
  place(position: Position): [x: number, y: number];
  metresPerPixel: number;
}

/** What is shown at least from one side to the other: a thing that stands still would fill the picture with noise. */
const LEAST_M = 40;

/** The plane on which all these positions are seen, north up; null where there are none. */
export function planeOf(positions: readonly Position[], width: number, height: number, padding: number): Plane | null {
  const [first] = positions;
  if (!first) return null;
  // both sides of 180° are neighbours
  const near = (longitude: number) => longitude - 360 * Math.round((longitude - first.longitude) / 360);
  let [west, east, south, north] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const { latitude, longitude } of positions) {
    west = Math.min(west, near(longitude));
    east = Math.max(east, near(longitude));
    south = Math.min(south, latitude);
    north = Math.max(north, latitude);
  }
  const metresPerDegree = radians(1) * EARTH_M;
  const middle = (south + north) / 2;
  const shrink = Math.max(0.01, Math.cos(radians(middle)));
  const wide = Math.max(LEAST_M, (east - west) * shrink * metresPerDegree);
  const tall = Math.max(LEAST_M, (north - south) * metresPerDegree);
  const metresPerPixel = Math.max(wide / Math.max(1, width - 2 * padding), tall / Math.max(1, height - 2 * padding));
  const centre = (west + east) / 2;
  return {
    metresPerPixel,
    place: ({ latitude, longitude }) => [
      width / 2 + ((near(longitude) - centre) * shrink * metresPerDegree) / metresPerPixel,
      height / 2 - ((latitude - middle) * metresPerDegree) / metresPerPixel,
    ],
  };
}

/** A bar of a round length, at most so many pixels wide. */
export function scaleBar(metresPerPixel: number, most: number): { metres: number; pixels: number } {
  const limit = metresPerPixel * most;
  const power = 10 ** Math.floor(Math.log10(limit));
  const metres = ([5, 2].find((factor) => factor * power <= limit) ?? 1) * power;
  return { metres, pixels: metres / metresPerPixel };
}

/** The point that is drawn nearest to a place, within `reach` pixels; null where none is. */
export function nearestPoint(
  tracks: readonly (readonly TrackPoint[])[],
  plane: Plane,
  x: number,
  y: number,
  reach: number,
): { track: number; index: number } | null {
  let best: { track: number; index: number } | null = null;
  let least = reach;
  for (const [track, points] of tracks.entries())
    for (const [index, point] of points.entries()) {
      const [px, py] = plane.place(point);
      const apart = Math.hypot(px - x, py - y);
      if (apart <= least) {
        least = apart;
        best = { track, index };
      }
    }
  return best;
}

/** The last point up to a moment; -1 where there is none. */
export function indexAt(points: readonly TrackPoint[], time: number): number {
  let found = -1;
  for (const [index, point] of points.entries()) {
    if (point.time > time) break;
    found = index;
  }
  return found;
}
