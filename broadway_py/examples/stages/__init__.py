"""Small programs that show the stages of :mod:`broadway_py.stage`. They are the four examples of GenStage."""
