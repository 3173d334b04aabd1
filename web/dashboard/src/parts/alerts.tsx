/** Alerts that fire, above every view. */

import { askToNotify, firing, mayAsk } from "../alerts.ts";
import { t } from "../core/words.ts";
import { to } from "../router.ts";
import { gatewayNow } from "../session.ts";
import { Age } from "./bits.tsx";
import { useTicker } from "./ticker.ts";

/** What is shown; the rest is a number. */
const SHOWN = 5;

export function FiringAlerts() {
  useTicker(1);
  const list = firing.value;
  if (list.length === 0) return null;
  return (
    <section class="alerts" aria-label={t("Alerts that fire")}>
      <div role="status">
        <ul>
          {list.slice(0, SHOWN).map((alert) => (
            <li key={alert.name}>
              <strong>{alert.name}</strong>
              <span class="summary">
                {alert.topic === "" ? alert.summary : <a href={to.live(alert.topic)}>{alert.summary || alert.topic}</a>}
              </span>
              <Age time={alert.since} now={gatewayNow()} />
            </li>
          ))}
        </ul>
      </div>
      {list.length > SHOWN && (
        <p>
          {t("and")} {list.length - SHOWN} {t("more")}
        </p>
      )}
      {mayAsk.value && (
        <button type="button" class="quiet" onClick={() => void askToNotify()}>
          {t("Notify me of alerts")}
        </button>
      )}
    </section>
  );
}
