/** What is known of the topic that is chosen in the tree, and what can be done with it. */

import { counted, formatAge, formatCount, formatRate } from "../core/format.ts";
import { payloadText, type TopicNode } from "../core/tree.ts";
import { t } from "../core/words.ts";
import { fleet } from "../fleet.ts";
import { TopicActs } from "../parts/acts.tsx";
import { CloseIcon } from "../parts/icons.tsx";
import { PayloadView } from "../parts/payload.tsx";
import { to } from "../router.ts";

interface DetailsProps {
  node: TopicNode | undefined;
  now: number;
  /** Chooses another topic or level. */
  onGo: (path: string) => void;
  /** Lets go of the chosen one; null where there is room for it beside the tree. */
  onClose: (() => void) | null;
}

export function Details({ node, now, onGo, onClose }: DetailsProps) {
  if (!node) {
    return (
      <aside class="details" aria-label={t("Selected topic")}>
        <p class="soft">{t("Choose a topic to see what it said last.")}</p>
      </aside>
    );
  }
  const owners = fleet.ownersOf(node.path);
  const filter = node.children ? `${node.path}/#` : node.path;
  const rate = node.perSecond(now);
  return (
    <aside class="details" aria-label={t("Selected topic")}>
      <div class="details-head">
        <h2 class="sr">{node.path}</h2>
        <Crumbs node={node} onGo={onGo} />
        {onClose && (
          <button type="button" class="quiet square" aria-label={t("Close")} title={t("Close")} onClick={onClose}>
            <CloseIcon />
          </button>
        )}
      </div>
      {owners.length > 0 && (
        <p class="owners">
          {owners.slice(0, 5).map((device) => (
            <a key={device.id} href={to.device(device.id)}>
              {device.title}
            </a>
          ))}
          {owners.length > 5 && (
            <span class="soft">
              {t("and")} {formatCount(owners.length - 5)} {t("more")}
            </span>
          )}
        </p>
      )}
      <p class="links">
        {node.isTopic && <a href={to.live(node.path)}>{t("Show live")}</a>}
        {node.children && (
          <a href={to.live(filter)}>{t("Show all {count} below", { count: formatCount(node.topics) })}</a>
        )}
      </p>
      <TopicActs
        topic={node.path}
        below={node.children ? filter : null}
        isLevel={!node.isTopic}
        value={node.hasValue && node.encoding === undefined ? payloadText(node.payload) : undefined}
      />
      <p class="soft num facts">
        <span>{counted(node.count, "message")}</span>
        {rate > 0 && <span>{formatRate(rate)}</span>}
        {node.isTopic && (
          <span>
            {formatAge(now - node.time) === "now"
              ? t("just now")
              : t("{value} ago", { value: formatAge(now - node.time) })}
            {node.retained ? t(", retained") : ""}
          </span>
        )}
      </p>
      {node.hasValue ? (
        <PayloadView payload={node.payload} encoding={node.encoding} previous={undefined} />
      ) : (
        !node.isTopic && <p class="soft">{t("A level on the way; nothing is published to it itself.")}</p>
      )}
    </aside>
  );
}

/** The levels that lead to it, each a way back up that stays in the tree. */
function Crumbs({ node, onGo }: { node: TopicNode; onGo: (path: string) => void }) {
  const levels: TopicNode[] = [];
  for (let up: TopicNode | null = node; up?.parent; up = up.parent) levels.unshift(up);
  return (
    <nav class="crumbs topic" aria-label={t("Levels")}>
      <ol>
        {levels.map((level) => (
          <li key={level.path}>
            <a
              href={to.topics(level.path)}
              aria-current={level === node ? "location" : undefined}
              onClick={(event) => {
                if (event.metaKey || event.ctrlKey || event.shiftKey) return;
                event.preventDefault();
                onGo(level.path);
              }}
            >
              {level.name === "" ? <i>{t("(empty)")}</i> : level.name}
            </a>
          </li>
        ))}
      </ol>
    </nav>
  );
}
