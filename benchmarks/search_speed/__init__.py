"""How fast are searches beside what bounds them: the engine, a lock-step driver, their own bookkeeping?"""
