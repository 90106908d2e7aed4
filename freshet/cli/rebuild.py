"""`freshet rebuild`: restores consents and lists in Redis from the job's state."""

from freshet.cli.shape import SettingsFile, command, root


@command(root, "rebuild", "freshet rebuild --settings freshet.toml")
def rebuild(settings: SettingsFile) -> None:
    """Rewrite all consents, lists and tombstones of erased users in Redis.

    The job rewrites consents and lists by itself, within a second, if Redis has lost data or another process took over.
    Use this for losses that it cannot see, such as keys that somebody deleted. The command does not wait: the job
    writes lists as it catches up, at `refresh.rebuilt_per_second`. Until then readers get popular lists.
    """
    from jobs.settings import load_settings
    from privacy.rebuild import rebuild as begin

    written = begin(load_settings(settings))
    print(f"tombstones of {written} erased users were restored; the job writes consents and lists as it catches up")
