-- Health of ModelRoutes, ModelBackends and ModelRevisions for Argo CD; charts/weir/README.md says
-- where it goes. A change that was rolled back is Degraded though stable goes on serving: the sync
-- did not come about. A rollout that people paused is Suspended.
local function told(status, message)
  return { status = status, message = message or "" }
end

local status = obj.status or {}
if obj.kind == "ModelRevision" then
  if (obj.spec or {}).kind == "Backend" then
    return told("Healthy", "kept as it was resolved")
  end
  local outcome = status.outcome or "not decided on yet"
  if outcome == "RolledBack" then
    return told("Degraded", "rolled back: " .. (status.reason or ""))
  end
  if outcome == "Stable" or outcome == "Superseded" then
    return told("Healthy", outcome)
  end
  return told("Progressing", outcome)
end

local conditions = {}
for _, one in ipairs(status.conditions or {}) do
  conditions[one.type] = one
end
local function is(kind)
  local one = conditions[kind]
  if one ~= nil and one.status == "True" then
    return one
  end
end

local observed = status.observedGeneration or 0
if observed < (obj.metadata.generation or 0) or next(conditions) == nil then
  return told("Progressing", "waiting for the operator to see the latest spec")
end
for _, kind in ipairs({ "Accepted", "ResolvedRefs" }) do
  local one = conditions[kind]
  if one ~= nil and one.status == "False" then
    return told("Degraded", one.message)
  end
end
if is("RolledBack") then
  return told("Degraded", is("RolledBack").message)
end
if status.phase == "Paused" then
  return told("Suspended", status.message)
end
if is("Stalled") or status.phase == "Degraded" then
  local why = is("Stalled") or {}
  return told("Degraded", why.message or status.message)
end
if is("Reconciling") or status.phase == "Progressing" then
  local why = is("Reconciling") or {}
  return told("Progressing", why.message or status.message)
end
local ready = conditions["Ready"]
if ready ~= nil and ready.status == "True" then
  return told("Healthy", ready.message)
end
if ready ~= nil and ready.reason == "ScaledToZero" then
  return told("Suspended", ready.message)
end
return told("Progressing", ready and ready.message or status.message)
