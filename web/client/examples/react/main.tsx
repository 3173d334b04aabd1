import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { useLive, useLiveState, useTopics } from "./use-live.js";

function Sensors() {
  const live = useLive("ws", { maxHz: 5 });
  const state = useLiveState(live);
  const sensors = useTopics<{ temperature: number }>(live, "sensors/+/state");
  return (
    <main>
      <p>{state}</p>
      <ul>
        {[...sensors.values()].map(({ topic, payload }) => (
          <li key={topic}>
            {topic.split("/")[1]}: {payload.temperature} °C
          </li>
        ))}
      </ul>
    </main>
  );
}

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <Sensors />
    </StrictMode>,
  );
}
