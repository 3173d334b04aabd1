import { describe, expect, it } from "vitest";
import { Flow, Rate, Rhythm } from "../src/core/rhythm.ts";

describe("rhythm", () => {
  it("knows nothing before it has seen something", () => {
    const rhythm = new Rhythm();
    expect(rhythm.interval).toBeNull();
    expect(rhythm.isStale(1e12)).toBe(false);
  });

  it("goes by what was announced until it has seen three intervals", () => {
    const rhythm = new Rhythm(10_000);
    rhythm.note(0);
    rhythm.note(60_000);
    expect(rhythm.interval).toBe(10_000);
    for (const time of [120_000, 180_000]) rhythm.note(time);
    expect(rhythm.interval).toBe(60_000);
    expect(rhythm.learnt).toBe(true);
  });

  it("isn't moved by one pause or one burst", () => {
    const rhythm = new Rhythm();
    for (const time of [0, 10, 20, 30, 31, 32, 200, 210, 220, 230]) rhythm.note(time * 1000);
    expect(rhythm.interval).toBe(10_000);
  });

  it("calls a device stale against its own rhythm", () => {
    const quick = new Rhythm();
    const hourly = new Rhythm();
    for (let index = 0; index < 5; index++) {
      quick.note(index * 10_000);
      hourly.note(index * 3_600_000);
    }
    expect(quick.isStale(40_000 + 29_000)).toBe(false);
    expect(quick.isStale(40_000 + 31_000)).toBe(true);
    expect(hourly.isStale(4 * 3_600_000 + 7_200_000)).toBe(false);
  });

  it("grants even the quickest sensor five seconds", () => {
    const rhythm = new Rhythm(100);
    rhythm.note(1000);
    expect(rhythm.isStale(5_900)).toBe(false);
    expect(rhythm.isStale(6_100)).toBe(true);
  });

  it("learns from history that comes after the news", () => {
    const rhythm = new Rhythm(60_000);
    rhythm.note(100_000);
    rhythm.learn([70_000, 80_000, 90_000, 100_000]);
    expect(rhythm.interval).toBe(10_000);
    expect(rhythm.lastTime).toBe(100_000);
    rhythm.note(110_000);
    expect(rhythm.interval).toBe(10_000);
    const silent = new Rhythm();
    silent.learn([1000, 2000, 3000, 4000]);
    expect([silent.interval, silent.lastTime]).toEqual([1000, 4000]);
  });

  it("takes no backlog that is handed in at once for a rhythm", () => {
    const rhythm = new Rhythm(60_000);
    for (let index = 0; index < 30; index++) rhythm.note(1_000_000 + index * 20);
    expect(rhythm.interval).toBe(60_000);
    expect(rhythm.isStale(1_000_600 + 100_000)).toBe(false);
  });

  it("lets who said that it sleeps sleep for as long as it announced", () => {
    const rhythm = new Rhythm(600_000);
    for (let index = 0; index < 5; index++) rhythm.note(index * 70_000);
    expect(rhythm.isStale(280_000 + 300_000)).toBe(true);
    expect(rhythm.isStale(280_000 + 300_000, true)).toBe(false);
  });

  it("ignores what arrives out of order", () => {
    const rhythm = new Rhythm();
    rhythm.note(2000);
    rhythm.note(1000);
    expect(rhythm.lastTime).toBe(2000);
  });
});

describe("rate", () => {
  it("is right from the first seconds on and decays when nothing comes", () => {
    const rate = new Rate(10);
    for (let time = 0; time < 5000; time += 100) rate.note(1_000_000 + time);
    expect(rate.read(1_005_000)).toBeGreaterThan(9);
    expect(rate.read(1_005_000)).toBeLessThan(11);
    expect(rate.read(1_105_000)).toBeLessThan(0.01);
  });
});

describe("flow", () => {
  it("goes on from what it is told, and is steady where little comes", () => {
    const flow = new Flow();
    const now = 1_000_000;
    flow.seed(now, 0.1);
    const read: number[] = [];
    for (let time = now + 10_000; time <= now + 200_000; time += 10_000) {
      flow.note(time);
      read.push(flow.read(time + 5000));
    }
    expect(Math.min(...read)).toBeGreaterThan(0.08);
    expect(Math.max(...read)).toBeLessThan(0.12);
  });

  it("follows at once where much comes", () => {
    const flow = new Flow();
    for (let time = 0; time < 20_000; time += 10) flow.note(1_000_000 + time);
    expect(flow.read(1_020_000)).toBeCloseTo(100, -1);
    expect(flow.read(1_080_000)).toBeLessThan(1);
  });
});
