"""Why a component does not run, or a request about it was refused."""

from __future__ import annotations

from magmobo.contracts.errors import MagError
from magmobo.kernel.errors import located


class ComponentFailure(MagError):
    """A hook of a component raised an error that is not one of ours; `cause` is that error."""

    code = "MAG-LIFE-002"
    remedy = "Read the component's error in the log under logs/; `mag component:show NAME` shows its last failures."

    def __init__(self, component: str, phase: str, cause: BaseException) -> None:
        super().__init__(component, phase, cause)
        self.component, self.phase, self.cause = component, phase, cause

    def __str__(self) -> str:
        text = f"{type(self.cause).__name__}: {self.cause}" if str(self.cause) else type(self.cause).__name__
        return f'{self.phase} of "{self.component}" failed: {text}'


class HookEscaped(MagError):
    """A component's hook or task tried to leave through something that would end the whole node: `SystemExit`,
    `KeyboardInterrupt`, another `BaseException`, or a cancellation nobody asked for.
    """

    code = "MAG-LIFE-003"
    remedy = "Correct the component: it must return, or raise an Exception, and never call sys.exit()."

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how

    def __str__(self) -> str:
        return f"it {self.how} instead of returning"


class HookStuck(MagError):
    """An earlier hook of the component passed its deadline, was cancelled, and still has not ended; no other hook runs
    beside it.
    """

    code = "MAG-LIFE-004"
    remedy = "Correct what the named line waits for: it swallows its cancellation. Restarting the node ends it."

    def __init__(self, component: str, phase: str, where: str) -> None:
        super().__init__(component, phase, where)
        self.component, self.phase, self.where = component, phase, where

    def __str__(self) -> str:
        return f'{self.phase} of "{self.component}" was cancelled but still waits at {self.where}'


class UnhealthyComponent(MagError):
    """A running component said too often that it does not serve, or did not answer; it is restarted for that.

    `since_start`: it has not been well since it was started last.
    """

    code = "MAG-LIFE-005"
    remedy = '`mag component:show NAME` lists its checks; health.on_unhealthy = "report" keeps it from being restarted.'

    def __init__(self, component: str, detail: str, *, since_start: bool = False) -> None:
        super().__init__(component, detail)
        self.component, self.detail, self.since_start = component, detail, since_start

    def __str__(self) -> str:
        return f'component "{self.component}" is unhealthy: {self.detail}'


class NotNow(MagError):
    """The node or the component is on its way up or down, so that nothing else can be done with the component."""

    code = "MAG-LIFE-006"
    http_status = 503
    retryable = True
    remedy = "Wait until `mag kernel:status` shows that the node is ready, then try again."

    def __init__(self, component: str, why: str) -> None:
        super().__init__(component, why)
        self.component, self.why = component, why

    def __str__(self) -> str:
        return f'nothing can be done with component "{self.component}" now: {self.why}'


class CommitFailed(MagError):
    """`commit_reload` of a component raised; it must not fail, so the component is made anew with the settings."""

    code = "MAG-CONF-034"
    remedy = "Correct the component: whatever can fail belongs into `prepare_reload`."

    def __init__(self, component: str, cause: BaseException) -> None:
        super().__init__(component, cause)
        self.component, self.cause = component, cause

    def __str__(self) -> str:
        return f'commit_reload of "{self.component}" failed: {located(self.cause)}'
