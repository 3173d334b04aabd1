import { describe, expect, it } from "vitest";
import {
  distance,
  formatMetres,
  indexAt,
  lengthOf,
  momentOf,
  nearestPoint,
  planeOf,
  positionOf,
  scaleBar,
  Tracks,
} from "../src/core/track.ts";

const BERLIN = { latitude: 52.52, longitude: 13.405 };
const PARIS = { latitude: 48.8566, longitude: 2.3522 };

describe("positions", () => {
  it("are found as OwnTracks, GeoJSON and most others send them", () => {
    for (const payload of [
      { _type: "location", lat: 52.52, lon: 13.405, tst: 1 },
      { latitude: 52.52, longitude: 13.405, battery: 3 },
      { lat: 52.52, lng: 13.405 },
      { type: "Point", coordinates: [13.405, 52.52, 34] },
      { type: "Feature", geometry: { type: "Point", coordinates: [13.405, 52.52] }, properties: {} },
      { name: "van", gps: { latitude: 52.52, longitude: 13.405 } },
      { name: "van", where: { type: "Point", coordinates: [13.405, 52.52] } },
    ])
      expect(positionOf(payload)).toEqual(BERLIN);
  });
  it("are none where it isn't said, can't be, or isn't where the sender is", () => {
    for (const payload of [
      null,
      7,
      "52.52, 13.405",
      [52.52, 13.405],
      { lat: 52.52 },
      { lat: "52.52", lon: "13.405" },
      { lat: 152.52, lon: 13.405 },
      { lat: Number.NaN, lon: 13 },
      { lat: 0, lon: 0 },
      { _type: "waypoint", lat: 52.52, lon: 13.405 },
      { type: "LineString", coordinates: [[13, 52]] },
      { type: "Point", coordinates: [] },
    ])
      expect(positionOf(payload)).toBeNull();
  });
  it("have the time that OwnTracks says, and else the message's", () => {
    expect(momentOf({ tst: 1000 }, 5_000_000)).toBe(1_000_000);
    expect(momentOf({}, 5_000_000)).toBe(5_000_000);
    expect(momentOf({ tst: 9e12 }, 5_000_000)).toBe(5_000_000);
  });
});

describe("tracks", () => {
  const at = (seq: number, time: number, lat = 52) => ({ topic: "a", seq, time, payload: { lat, lon: 13 } });
  it("are in order of time, whatever order they come in, and have each message once", () => {
    const tracks = new Tracks();
    for (const message of [at(3, 30), at(1, 10), at(2, 20), at(1, 10), at(4, 20)]) tracks.note(message);
    expect(tracks.byTopic.get("a")?.map(({ seq }) => seq)).toEqual([1, 2, 4, 3]);
    expect(tracks.between("a", 15, 25).map(({ seq }) => seq)).toEqual([2, 4]);
    expect(tracks.note({ ...at(9, 9), payload: { temperature: 1 } })).toBe(false);
    expect(tracks.note({ ...at(9, 9), encoding: "base64" })).toBe(false);
  });
  it("are bounded in points and in topics", () => {
    const tracks = new Tracks({ topics: 1, points: 10 });
    for (let seq = 1; seq <= 100; seq++) tracks.note(at(seq, seq));
    const points = tracks.byTopic.get("a") ?? [];
    expect(points.length).toBeLessThanOrEqual(11);
    expect(points.at(-1)?.seq).toBe(100);
    tracks.note({ ...at(101, 101), topic: "b" });
    expect([tracks.byTopic.size, tracks.left]).toEqual([1, 1]);
  });
  it("are as long as the way", () => {
    expect(distance(BERLIN, PARIS) / 1000).toBeCloseTo(877.5, 0);
    expect(lengthOf([BERLIN, PARIS, BERLIN])).toBeCloseTo(2 * distance(BERLIN, PARIS), 3);
    expect(lengthOf([BERLIN])).toBe(0);
  });
  it("know where something was at a moment", () => {
    const tracks = new Tracks();
    for (const message of [at(1, 10), at(2, 20)]) tracks.note(message);
    const points = tracks.byTopic.get("a") ?? [];
    expect([5, 10, 15, 99].map((time) => indexAt(points, time))).toEqual([-1, 0, 0, 1]);
  });
});

describe("the plane", () => {
  it("has north up, east to the right, all points within, and one scale for both", () => {
    const plane = planeOf([BERLIN, PARIS], 400, 300, 20);
    if (!plane) throw new Error("no plane");
    const [berlin, paris] = [plane.place(BERLIN), plane.place(PARIS)];
    expect(berlin[0]).toBeGreaterThan(paris[0]);
    expect(berlin[1]).toBeLessThan(paris[1]);
    for (const [x, y] of [berlin, paris]) {
      expect(x).toBeGreaterThanOrEqual(19.9);
      expect(x).toBeLessThanOrEqual(380.1);
      expect(y).toBeGreaterThanOrEqual(19.9);
      expect(y).toBeLessThanOrEqual(280.1);
    }
    const drawn = Math.hypot(berlin[0] - paris[0], berlin[1] - paris[1]) * plane.metresPerPixel;
    expect(drawn / distance(BERLIN, PARIS)).toBeCloseTo(1, 1);
  });
  it("joins what is left and right of 180°", () => {
    const [west, east] = [
      { latitude: -17, longitude: 179.9 },
      { latitude: -17, longitude: -179.9 },
    ];
    const plane = planeOf([west, east], 400, 300, 20);
    expect((plane?.metresPerPixel ?? 0) * 360).toBeLessThan(30_000);
    expect(plane?.place(east)[0]).toBeGreaterThan(plane?.place(west)[0] ?? 0);
  });
  it("doesn't make noise of what stands still", () => {
    const plane = planeOf([BERLIN, { ...BERLIN, latitude: 52.520001 }], 400, 300, 20);
    const [first, second] = [plane?.place(BERLIN), plane?.place({ ...BERLIN, latitude: 52.520001 })];
    expect(Math.abs((first?.[1] ?? 0) - (second?.[1] ?? 99))).toBeLessThan(3);
    expect(planeOf([], 400, 300, 20)).toBeNull();
  });
  it("has a bar of a round length", () => {
    for (const [scale, metres] of [
      [1, 100],
      [3.3, 500],
      [0.7, 100],
      [900, 100_000],
    ] as const) {
      const bar = scaleBar(scale, 160);
      expect(bar.metres).toBe(metres);
      expect(bar.pixels).toBeLessThanOrEqual(160);
    }
    expect([formatMetres(350.4), formatMetres(3210), formatMetres(123_456)]).toEqual(["350 m", "3.2 km", "123 km"]);
  });
  it("tells the nearest point within reach", () => {
    const points = [
      { ...BERLIN, time: 1, moment: 1, seq: 1 },
      { ...PARIS, time: 2, moment: 2, seq: 2 },
    ];
    const plane = planeOf(points, 400, 300, 20);
    if (!plane) throw new Error("no plane");
    const [x, y] = plane.place(PARIS);
    expect(nearestPoint([points], plane, x + 5, y, 20)).toEqual({ track: 0, index: 1 });
    expect(nearestPoint([points], plane, 200, 0, 20)).toBeNull();
  });
});
