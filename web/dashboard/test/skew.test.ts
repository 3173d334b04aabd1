import { expect, it } from "vitest";
import { Skew } from "../src/core/skew.ts";

it("takes the least age of a message, less half a round trip, for the difference of the clocks", () => {
  const skew = new Skew();
  expect(skew.value).toBeNull();
  skew.note({ sent: 1000, now: 6040, steady: 40, trip: 20 });
  expect(skew.value).toBe(5030);
  skew.note({ sent: 2000, now: 7090, steady: 1090, trip: 20 });
  expect(skew.value).toBe(5030);
  skew.note({ sent: 3000, now: 8015, steady: 2015, trip: 20 });
  expect(skew.value).toBe(5005);
});

it("learns anew when this machine's clock is set, forward or back", () => {
  for (const hour of [3_600_000, -3_600_000]) {
    const skew = new Skew();
    skew.note({ sent: 1000, now: 1020, steady: 20, trip: 20 });
    skew.note({ sent: 2000, now: 2030 + hour, steady: 1030, trip: 20 });
    expect(skew.value).toBe(20 + hour);
  }
});

it("isn't moved by a message that was late while the clock ran on", () => {
  const skew = new Skew();
  skew.note({ sent: 1000, now: 1020, steady: 20, trip: 20 });
  skew.note({ sent: 2000, now: 9000, steady: 8000, trip: 20 });
  expect(skew.value).toBe(10);
});
